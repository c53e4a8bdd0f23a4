"""The Tab key: what is offered where, by click and by a real shell, without anything heavy being imported."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

import keras_musictag as kmt
from keras_musictag.cli import main

VARIABLE = "_KERAS_MUSICTAG_COMPLETE"


def run(*args, **environment):
    return CliRunner().invoke(main, [*args], catch_exceptions=False, env=environment)


def offered(*words):
    """Words that are offered for the last of `words`, and kinds of files."""
    *before, incomplete = words
    found = ShellComplete(main, {}, "keras-musictag", VARIABLE).get_completions(before, incomplete)
    return {item.value if item.type == "plain" else item.type for item in found}


@pytest.mark.parametrize(
    "words",
    [
        ("tag", "--model", "musicnn"),
        ("taggram", "-m", "musicnn"),
        ("library", "-m", "musicnn"),
        ("search", "t.parquet", "--model", "musicnn"),
        ("serve", "--model", "musicnn"),
        ("export", "musicnn"),
        ("push", "musicnn"),
        ("finetune", "musicnn"),
        ("train", "musicnn"),
        ("distil", "--teacher", "musicnn"),
        ("probe", "tiny", "musicnn"),
        ("benchmark", "musicnn"),
        ("benchmark", "tiny", "musicnn"),
        ("benchmark", "run", "musicnn"),
    ],
)
def test_names_of_models_and_folders(words):
    assert offered(*words) == {"musicnn_msd", "musicnn_mtt", "dir"}


def test_where_only_names_or_also_files_can_be():
    assert offered("info", "musicnn") == offered("validate", "tiny", "musicnn") == {"musicnn_msd", "musicnn_mtt"}
    assert offered("evaluate", "tiny", "musicnn") == {"musicnn_msd", "musicnn_mtt", "file"}
    assert set(kmt.list_models()) <= offered("tag", "--model", "")


def test_everything_else():
    assert offered("ta") == {"tag", "taggram"}
    assert offered("tag", "--runtime", "o") == {"onnxruntime", "openvino"}
    assert offered("tag", "--format", "") == {"text", "json", "csv"}
    assert offered("tag", "") == {"file"} == offered("evaluate", "tiny", "--data", "m")
    assert offered("export", "tiny", "out", "--format", "o") == {"onnx", "openvino"}
    assert "--quick" in offered("benchmark", "tiny", "--q")
    assert {"run", "compare", "tiny"} <= offered("benchmark", "")
    assert offered("benchmark", "compare", "") == {"file"}
    assert offered("data", "check", "jamendo-") == {f"jamendo-{number}" for number in range(1, 5)}
    assert "musicnet_crnn/magnatagatune" in offered("train", "--recipe", "musicnet")
    assert offered("completion", "") == {"bash", "zsh", "fish"}


# === The command ===


@pytest.mark.parametrize(
    ("shell", "part"), [("bash", "complete -o"), ("zsh", "#compdef keras-musictag"), ("fish", "complete --no-files")]
)
def test_the_scripts(shell, part):
    result = run("completion", shell)
    assert result.exit_code == 0 and VARIABLE in result.stdout and part in result.stdout
    assert run("completion", SHELL=f"/usr/bin/{shell}").stdout == result.stdout


def test_a_shell_without_a_script():
    result = run("completion", SHELL="/bin/tcsh")
    assert result.exit_code == 2 and "There is no script for the shell 'tcsh'. Name one of bash," in result.stderr
    assert run("completion", "tcsh").exit_code == 2


def test_in_bash():
    bash, program = shutil.which("bash"), Path(sys.executable).with_name("keras-musictag")
    if bash is None or not program.is_file():
        pytest.skip("wants bash and the installed command")
    code = (
        'eval "$(keras-musictag completion bash)"; COMP_WORDS=(keras-musictag tag --model musicn); COMP_CWORD=3; '
        '_keras_musictag_completion keras-musictag 2>/dev/null; echo "${COMPREPLY[@]}"; complete -p keras-musictag'
    )
    env = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    result = subprocess.run([bash, "-c", code], capture_output=True, text=True, env=env, check=True)
    models, registered = result.stdout.splitlines()
    expected = "musicnet_crnn musicnet_crnn_fast musicnet_crnn_jamendo musicnet_crnn_msd musicnn_msd musicnn_mtt"
    assert models == expected and "_keras_musictag_completion" in registered


# === Speed ===


def completing(*words):
    """A process that a shell would start."""
    line = " ".join(("keras-musictag", *words))
    env = {**os.environ, VARIABLE: "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words))}
    code = (
        "import sys\nfrom keras_musictag.cli import main\n"
        "try: main(prog_name='keras-musictag')\n"
        "finally: print(sorted({'keras', 'numpy', 'rich', 'tensorflow'} & set(sys.modules)), file=sys.stderr)"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)


def test_nothing_heavy_is_imported():
    result = completing("tag", "--model", "musicnn_ms")
    assert "plain,musicnn_msd" in result.stdout and result.stderr.strip() == "[]"


@pytest.mark.speed
def test_takes_less_than_0_3_seconds():
    resource = pytest.importorskip("resource")

    # Processor time, since that on the wall depends on who else computes. Measured 0.20 s.
    def spent():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        completing("tag", "--model", "musicnn_ms")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(spent() for _ in range(5)) < 0.3
