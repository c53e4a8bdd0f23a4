"""The rooms of the package: imports go down only, files form no circle, and no private name crosses a room.

Every import is read, those inside functions too; imports for type checkers alone do not count for circles.
"""

import ast
import importlib.util
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

pytestmark = pytest.mark.smoke

PACKAGE = "keras_musictag"
ROOT = Path(__file__).parents[1] / PACKAGE
# Lowest first: each imports only from itself and those before it.
ROOMS = ("errors", "utils", "plots", "audio", "models", "datasets", "tagging", "evaluation", "training")
ROOMS += ("tagger", "loading", "apps", "cli")


def modules():
    """Module name -> file."""
    names = {}
    for path in ROOT.rglob("*.py"):
        parts = [PACKAGE, *path.relative_to(ROOT).with_suffix("").parts]
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


MODULES = modules()


def imports(module):
    """Imports of this package in a module: target, imported name, line, whether for type checkers only."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    checkers = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
    typing_only = {id(inner) for node in checkers for statement in node.body for inner in ast.walk(statement)}
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == PACKAGE:
                    yield alias.name, "", node.lineno, id(node) in typing_only
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            if base.split(".")[0] != PACKAGE:
                continue
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                target, name = (inner, "") if inner in MODULES else (base, alias.name)
                yield target, name, node.lineno, id(node) in typing_only


def room(module):
    """First part of the name below the package; empty for the package itself."""
    return module.split(".")[1] if "." in module else ""


def test_every_file_is_in_a_room():
    assert {room(module) for module in MODULES} - {""} == set(ROOMS)


@pytest.mark.parametrize("module", sorted(module for module in MODULES if room(module)))
def test_imports_go_down_and_private_names_stay_in_their_room(module):
    faults = []
    for target, name, line, _ in imports(module):
        if not room(target):  # the package itself: its version only
            if name != "__version__":
                faults.append(f"line {line}: {name} from the package itself; import it from the module that defines it")
            continue
        if ROOMS.index(room(target)) > ROOMS.index(room(module)):
            faults.append(f"line {line}: {room(module)} must not import {target}")
        if name.startswith("_") and room(target) != room(module):
            faults.append(f"line {line}: {name} is private to {room(target)}")
    assert not faults, "\n".join([module, *faults])


def test_other_rooms_use_the_public_attributes_of_a_tagger():
    users = {module: path.read_text(encoding="utf-8") for module, path in MODULES.items() if room(module) != "tagging"}
    private = {module: re.findall(r"\btagger\._\w+", text) for module, text in users.items()}
    assert not {module: found for module, found in private.items() if found}


def test_files_form_no_circle():
    graph = {}
    for module in MODULES:
        if room(module):
            targets = {target for target, _, _, typing_only in imports(module) if not typing_only}
            graph[module] = {target for target in targets if room(target) and target != module}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail("A circle of imports: " + " -> ".join(error.args[1]))
