"""The beets plugin in the real beets: commands in processes of their own, on a library of generated sounds."""

import contextlib
import csv
import dataclasses
import doctest
import importlib.util
import itertools
import os
import re
import signal
import sqlite3
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from audio_files import posix
from interrupts import usual_ctrl_c
from library_files import sound

import keras_musictag as kmt

pytestmark = [
    posix,
    pytest.mark.skipif(importlib.util.find_spec("beets") is None, reason="beets is not installed"),
    pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="ONNX Runtime is not installed"),
]

ROOT = Path(__file__).parents[1]
FILES = 200
BROKEN = "117.wav"
KINDS = {"tone": "genre", "chord": "genre", "noise": "mood", "clicks": "instrument"}  # "sweep" has none
CONFIG = """
library: {folder}/library.db
directory: {folder}/music
plugins: musictag smartplaylist
import: {{copy: no, write: no, autotag: no, quiet: yes}}
smartplaylist:
    playlist_dir: {folder}/playlists
    playlists: [{{name: tonal.m3u, query: "musictag_genre:=tone musictag_mood:=noise"}}]
musictag:
    model: {model}
    {options}
"""


@dataclasses.dataclass
class Beets:
    """A beets library in a folder."""

    folder: Path
    model: Path

    def configure(self, options=""):
        self.folder.mkdir(exist_ok=True)
        text = CONFIG.format(folder=self.folder, model=self.model, options=options)
        (self.folder / "config.yaml").write_text(text)

    def start(self, *arguments):
        environment = {**os.environ, "BEETSDIR": str(self.folder), "PYTHONPATH": str(ROOT)}
        pipe = subprocess.PIPE
        command = [sys.executable, "-m", "beets", *map(str, arguments)]
        return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment)

    def __call__(self, *arguments, status=0):
        """Run a command; return what it writes to standard output and to standard error."""
        process = self.start(*arguments)
        output, errors = process.communicate(timeout=100)
        assert process.returncode == status, errors
        return output, errors

    def attributes(self):
        """Name of a file -> flexible attributes as they are in the database."""
        with sqlite3.connect(self.folder / "library.db") as database:
            rows = database.execute(
                "SELECT path, key, value FROM items LEFT JOIN item_attributes ON items.id = entity_id"
            ).fetchall()
        database.close()
        found = {}
        for path, key, value in rows:
            of_file = found.setdefault(os.path.basename(os.fsdecode(path)), {})
            if key is not None and key.startswith("musictag_"):
                of_file[key] = value
        return found

    def tagged(self):
        return {name: values for name, values in self.attributes().items() if "musictag_model" in values}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """`tiny` with kinds of tags, exported: a process that runs it starts in a second."""
    tagger = kmt.load("tiny")
    tagger.spec = dataclasses.replace(tagger.spec, kinds=KINDS)
    folder = tmp_path_factory.mktemp("beets") / "model"
    tagger.export(folder, format="onnx")
    return folder


@pytest.fixture(scope="module")
def imported(model, tmp_path_factory):
    """A library of 200 files, one of them broken after the import."""
    beets = Beets(tmp_path_factory.mktemp("library"), model)
    beets.configure()
    music = beets.folder / "music"
    music.mkdir()
    for number in range(FILES):
        sound(music / f"{number:03}.wav", 0.3, 0.005 + 0.01 * number)
    beets("import", music)
    (music / BROKEN).write_bytes(b"no sound")
    return beets


def interrupt(beets, number, after):
    """Start `beet musictag -p`, and send a signal once it has told of so many files. Return the exit status."""
    process = beets.start("musictag", "-p")
    told = 0
    while told < after:
        line = process.stderr.readline()
        assert line, process.wait()
        told += ".wav: " in line
    process.send_signal(number)
    process.communicate(timeout=60)
    return process.returncode


@pytest.fixture(scope="module")
def tagged(imported):
    """The library after two runs that were cut short and one that went to its end; attributes after each; messages."""
    statuses, stages = [], []
    for number in (signal.SIGINT, signal.SIGKILL):
        with usual_ctrl_c():
            statuses.append(interrupt(imported, number, 20))
        stages.append(imported.tagged())
    _, errors = imported("musictag", "-p")
    stages.append(imported.tagged())
    return imported, statuses, stages, errors


def test_interrupted_runs_keep_what_is_done_and_the_next_one_goes_on(tagged):
    _, statuses, (first, second, last), errors = tagged
    assert statuses == [0, -signal.SIGKILL]  # beets itself ends quietly on Ctrl-C
    assert 20 <= len(first) <= len(second) - 20 and len(second) < FILES - 1 == len(last)
    assert all(last[name] == values for stage in (first, second) for name, values in stage.items())
    assert f"{FILES - 1 - len(second)} tagged, {len(second)} tagged before, 1 failed" in errors


def test_a_broken_file_is_reported_and_the_rest_is_tagged(tagged):
    beets, _, (*_, last), errors = tagged
    assert f"{BROKEN}' is not a sound file" in errors
    assert set(beets.attributes()) - set(last) == {BROKEN}


def test_attributes_are_what_the_model_says(tagged):
    beets, _, (*_, last), _ = tagged
    tagger = kmt.load(beets.model)
    names = sorted(last)
    results = tagger.tag_many([beets.folder / "music" / name for name in names])
    for name, result in zip(names, results, strict=True):
        expected = {"musictag_model": "tiny"}
        for tag, p in result.tags.items():  # most probable first
            key = f"musictag_{KINDS.get(tag, 'other')}"
            if p >= 0.5:
                expected[key] = "\\␀".join(filter(None, [expected.get(key), tag]))
        got = {key: value for key, value in last[name].items() if not key.startswith("musictag_p_")}
        assert got == expected, name
        stored = {tag: float(last[name][f"musictag_p_{tag}"]) for tag in tagger.names}
        assert stored == pytest.approx(result.tags, abs=1e-6)  # rounded to six digits
    assert len({values.get("musictag_genre") for values in last.values()}) > 1


def test_queries_sorting_and_formats(tagged):
    beets, _, (*_, last), _ = tagged
    output, _ = beets("ls", "-f", "$path|$musictag_genre|$musictag_p_tone", "musictag_mood:=noise", "musictag_p_tone-")
    rows = list(csv.reader(output.splitlines(), delimiter="|"))
    noisy = {name: values for name, values in last.items() if values.get("musictag_mood") == "noise"}
    assert 0 < len(noisy) < FILES and {os.path.basename(path) for path, *_ in rows} == set(noisy)
    by_probability = [float(p) for *_, p in rows]
    assert by_probability == sorted(by_probability, reverse=True)
    both = [genre for _, genre, _ in rows if ";" in genre]
    assert set(both) <= {"tone; chord", "chord; tone"}
    output, _ = beets("ls", "-f", "$path", "musictag_p_tone:0.9..")
    assert len(output.splitlines()) == sum(float(values["musictag_p_tone"]) >= 0.9 for values in last.values()) > 0


def test_smart_playlists(tagged):
    beets, _, (*_, last), _ = tagged
    beets("splupdate")
    lines = (beets.folder / "playlists" / "tonal.m3u").read_text().split()
    expected = [
        name
        for name, values in last.items()
        if "tone" in values.get("musictag_genre", "").split("\\␀") and values.get("musictag_mood") == "noise"
    ]
    assert sorted(map(os.path.basename, lines)) == sorted(expected) != []


def test_force_replaces_all_attributes(tagged):
    beets, _, (*_, last), _ = tagged
    name = "003.wav"
    assert "musictag_p_tone" in last[name] and {"musictag_genre", "musictag_mood"} & set(last[name])
    beets.configure("min_prob: 1.0")
    _, errors = beets("musictag", "--force", beets.folder / "music" / name)
    assert "no tag is probable enough" in errors and "1 tagged" in errors
    assert beets.tagged() == last | {name: {"musictag_model": "tiny"}}


def test_auto_tags_on_import(model, tmp_path):
    beets = Beets(tmp_path / "beets", model)
    beets.configure("auto: yes\n    kinds: genre mood")
    music = beets.folder / "music"
    music.mkdir()
    for number in range(3):
        sound(music / f"{number}.wav", 0.3, 0.1)
    header = (music / "0.wav").read_bytes()[:44]
    (music / "1.wav").write_bytes(header)  # no samples: beets imports it
    _, errors = beets("import", music)
    assert "1.wav" in errors and "2.wav" not in errors
    attributes = beets.attributes()
    assert attributes["1.wav"] == {} and attributes["0.wav"] == attributes["2.wav"]
    assert set(attributes["0.wav"]) <= {"musictag_genre", "musictag_mood", "musictag_model"}
    assert len(attributes["0.wav"]) > 1


def test_a_wrong_setting_ends_an_import_before_it_begins(model, tmp_path):
    beets = Beets(tmp_path / "beets", model)
    beets.configure("auto: yes\n    kinds: gender")
    (beets.folder / "music").mkdir()
    sound(beets.folder / "music" / "0.wav", 0.3)
    _, errors = beets("import", beets.folder / "music", status=1)
    assert "error: musictag: Unknown kinds of tags: gender. Known: genre, " in errors
    assert beets.attributes() == {}


def test_an_item_counts_as_tagged_only_with_all_its_attributes(model, tmp_path, monkeypatch):
    """Ctrl-C between any two statements of SQL, in a first run and in one with --force."""
    import beets
    from beets import plugins
    from beets.dbcore.db import Transaction
    from beets.library import Item, Library

    from beetsplug.musictag import MusicTagPlugin

    beets.config.clear()
    beets.config["musictag"].set({"model": str(model), "probabilities": True, "force": True})
    plugin = MusicTagPlugin()
    monkeypatch.setattr(plugins, "_instances", [plugin])
    library = Library(str(tmp_path / "library.db"))
    library.add(Item(path=bytes(sound(tmp_path / "0.wav", 0.3))))

    def attributes():
        (item,) = library.items()
        return {key: item[key] for key in item.keys(with_album=False) if key.startswith("musictag_")}

    mutate, left = Transaction.mutate, []

    def interrupted(self, *arguments):
        if left and not left.pop():
            raise KeyboardInterrupt
        return mutate(self, *arguments)

    monkeypatch.setattr(Transaction, "mutate", interrupted)
    complete, states = [], []
    for min_prob in (0.5, 1.0):
        plugin._chooser._options = dataclasses.replace(plugin._chooser._options, min_prob=min_prob)
        for statements in itertools.count():  # before the Ctrl-C
            left[:] = [False, *[True] * statements]
            with contextlib.suppress(KeyboardInterrupt):
                plugin.tag_items(library.items())
            states.append(attributes())
            if left:  # there was no further statement to interrupt
                break
        complete.append(states[-1])
    assert "musictag_genre" in complete[0] and "musictag_genre" not in complete[1]
    assert all(state in complete for state in states if "musictag_model" in state)
    assert len(states) > 2 * len(complete[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_prob": "auto"}, "has no thresholds"),
        ({"min_prob": 2}, "min_prob must be a probability from 0 to 1; got 2"),
        ({"most": 0}, "most must be a whole number of at least 1; got 0"),
        ({"runtime": "tape"}, "runtime must be 'auto' or one of .* got 'tape'"),
        ({"model": "no_such_model"}, "no_such_model"),
    ],
)
def test_wrong_settings(model, tmp_path, options, message):
    import beets
    from beets.library import Item
    from beets.ui import UserError

    from beetsplug.musictag import MusicTagPlugin

    beets.config.clear()
    beets.config["musictag"].set({"model": str(model), **options})
    with pytest.raises(UserError, match=f"^musictag: .*{message}"):
        MusicTagPlugin().tag_items([Item(path=tmp_path / "0.wav")])


def test_the_page_has_all_options_and_their_defaults():
    from beets import config

    from beetsplug.musictag import MusicTagPlugin

    config.clear()
    defaults = {key: view.get() for key, view in MusicTagPlugin().config.items()}
    shown = re.findall(
        r"^\| `(\w+)` \| (?:`(.+?)`)? *\| ", (ROOT / "docs" / "beets.md").read_text("utf-8"), re.MULTILINE
    )
    words = {False: "no", None: ""}
    assert dict(shown) == {key: "" if value == [] else words.get(value, str(value)) for key, value in defaults.items()}


def test_names_of_attributes():
    from beetsplug import musictag

    assert doctest.testmod(musictag).attempted > 0
    assert doctest.testmod(musictag).failed == 0


def test_the_wheel_has_the_plugin_and_leaves_the_namespace_open(tmp_path):
    from hatchling.builders.wheel import WheelBuilder

    wheel = next(WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"]))
    names = zipfile.ZipFile(wheel).namelist()
    assert [name for name in names if name.startswith("beetsplug/")] == ["beetsplug/musictag.py"]
