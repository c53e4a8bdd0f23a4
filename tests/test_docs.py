"""Every code block of the documentation is run, but for those listed here with the reason.

Pages that show what is printed have tests of their own: fine-tune.md below, index.md and migrate-from-musicnn.md in
test_site.py. All others are run block after block in one folder, with small data and few steps.
"""

import dataclasses
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import soundfile
from doc_pages import blocks, commands, invoke, pages, run_command, run_python, text_of
from labelled_sounds import labelled_sounds
from library_files import sound, sounds
from published_miniatures import gtzan_folder, jamendo_folder
from two_tags import two_tags

import keras_musictag as kmt
from keras_musictag.cli.finetune import finetune
from keras_musictag.cli.tag import tag
from keras_musictag.datasets.loaders.gtzan import filtered_split
from keras_musictag.models import registry

IN_TESTS_OF_THEIR_OWN = {"add-a-runtime-or-command.md", "fine-tune.md", "index.md", "migrate-from-musicnn.md"}

# Page -> beginning of a line of a shell block, or of another block -> why it is not run.
HOURS = "measures for minutes to hours; test_pages.py checks the page against its results"
NOT_RUN = {
    "command-line.md": {"keras-musictag download": "needs the internet; see test_cli_download.py"},
    "benchmark.md": {"python benchmarks/run.py": HOURS, "python benchmarks/memory.py": HOURS},
    "peers.md": {"python benchmarks/peers.py": HOURS},
    "small-data.md": {"python benchmarks/small_data.py": HOURS},
    "reliability.md": {
        "python benchmarks/fuzz.py": "takes minutes; test_fuzz.py runs it on fewer files",
        "python benchmarks/library.py": "a quarter of an hour; test_reliability.py checks its figures",
    },
    "exports.md": {
        "python docs/browser/build.py": "needs npm and a browser; see test_browser_page.py",
        "python -m http.server": "serves until it is stopped",
        "import {loadTagger}": "runs in a browser; see test_browser_page.py",
    },
    "library.md": {
        "ray start": "needs a cluster; test_library_ray.py starts one of one machine",
        "keras-musictag library s3://": "needs a cluster and a bucket; see test_library_ray.py",
        "from keras_musictag.apps.library import tag_on_ray": "needs a cluster and a bucket; see test_library_ray.py",
    },
    "beets.md": {
        "plugins: musictag": "settings of beets; test_beets.py has the same",
        "smartplaylist:": "settings of beets; test_beets.py has similar ones",
        "beet": "needs a beets library; test_beets.py has one",
    },
    "live.md": {
        "ffmpeg": "pipes and the internet; test_live.py feeds the same pipe",
        "keras-musictag listen": "needs a microphone; test_live.py has one that is made up",
    },
    "train.md": {
        "python -c": "3 GB; test_magnatagatune_end_to_end.py goes the same way with a miniature",
        "keras-musictag train --recipe": "see test_magnatagatune_end_to_end.py",
    },
    "data.md": {"keras-musictag train musicnet_crnn --data jamendo-3": "156 GB; see test_jamendo.py"},
}

# Page -> what is written there -> what is run instead: smaller models, fewer steps.
FEW = "--steps 2 --batch-size 2 --set training.warmup_steps=0"
SMALLER = {
    "data.md": {" MODEL ": " baseline_cnn ", '"/data/jamendo"': '"mtg-jamendo-dataset/audio"'},
    "evaluate.md": {"./mine": "musicnet_crnn", "musicnn_mtt --data": "baseline_cnn --data"},
    "library.md": {'"Music", "tags.parquet"': '"Music", "more.parquet"', "search tags.parquet": "search more.parquet",
                   'search("tags.parquet"': 'search("more.parquet"', "'tags.parquet' ORDER": "'more.parquet' ORDER"},
    "exports.md": {"musicnet_crnn": "tiny"},
    "probe.md": {"musicnet_crnn musicnn_msd tiny": "tiny", '"musicnet_crnn", ': ""},
    "train.md": {"musicnet_crnn": "tiny", "musicnn_mtt": "tiny", "--out mine\n": f"--out mine {FEW}\n",
                 "--out student\n": f"--out student {FEW}\n", "steps = 5_000": "steps = 2\nwarmup_steps = 0",
                 "steps=5_000": "steps=2, warmup_steps=0"},
}  # fmt: skip


# === What pages find in their folder ===


def song(path):
    y, sr = soundfile.read(kmt.demo_clip())
    soundfile.write(path, y, sr)


def own_clips(path):
    """24 artists, two tags."""
    rows = two_tags(path.parent / "clips", count=48)
    name = {"tonal": "dub", "noisy": "garage"}
    lines = [f"clips/{row.path.name},{'|'.join(name[tag] for tag in row.tags)},{row.group}" for row in rows]
    path.write_text("\n".join(["file,tags,artist", *lines]) + "\n")


def tagged_songs(path):
    """Twelve sounds with tags that models of the zoo have, most of them of the split test."""
    files = sounds(path.parent / path.stem, 12)
    lines = [
        f"{path.stem}/{file.name},{'train' if number < 4 else 'test'},{number % 2},{number % 3 % 2},{number // 2 % 2}"
        for number, file in enumerate(files)
    ]
    path.write_text("\n".join(["file,split,guitar,techno,noise", *lines]) + "\n")


MY_LABELS = "file,split,tags,artist\nclips/000.wav,train,dub,Ann\nclips/001.wav,test,garage|dub,Bob\n"

# Name that a page mentions -> what makes it.
MADE = {
    "song.mp3": song,
    "a.mp3": song,
    "b.mp3": lambda path: sound(path, 3.0),
    "clips.csv": own_clips,
    "songs.csv": tagged_songs,
    "test.csv": tagged_songs,
    "manifest.csv": lambda path: labelled_sounds(path.parent),
    "music/": lambda path: [
        two_tags(path / str(artist) / "album", count=1, seconds=1.1, seed=artist) for artist in range(40)
    ],
    "Music": lambda path: sounds(path, 3),
    "gtzan FOLDER": lambda path: gtzan_folder(path.with_name("FOLDER"), filtered_split()),
    "my-set": lambda path: (path.mkdir(), sounds(path / "clips", 2), (path / "labels.csv").write_text(MY_LABELS)),
    "mtg-jamendo-dataset": lambda path: jamendo_folder(path, splits=(3,)),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working folder that is the home folder, and a registry that forgets."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    known = set(kmt.list_models())
    yield tmp_path
    for name in set(kmt.list_models()) - known:
        registry._specs.pop(name), registry._builders.pop(name)


# === All pages ===


@pytest.mark.parametrize("page", sorted(set(pages()) - IN_TESTS_OF_THEIR_OWN))
def test_the_blocks_of(page, folder):
    text = text_of(page)
    for name, make in MADE.items():
        if name in text:
            make(folder / name)
    names = {"__name__": "example"}
    skipped = NOT_RUN.get(page, {})
    for language, block in smaller(page):
        if language == "bash":
            for words in commands(block):
                if not shlex.join(words).startswith(tuple(skipped)):
                    run_command(words, page)
        elif not language or block.startswith(tuple(skipped)):
            continue
        elif language == "python":
            run_python(block, page, names)
        elif language == "toml":
            tomllib.loads(block)
            Path("recipe.toml").write_text(block)
        elif language == "sql":
            pytest.importorskip("duckdb").sql(block).fetchall()
        else:
            raise AssertionError(f"{page}: how is {language} run? Say in NOT_RUN why it is not.\n{block}")


def smaller(page):
    """The blocks of a page with what `SMALLER` says."""
    changed = blocks(page)
    for old, new in SMALLER.get(page, {}).items():
        assert any(old in block for _, block in changed), f"{page} has no {old!r} any more"
        changed = [(language, block.replace(old, new)) for language, block in changed]
    return changed


def test_no_exception_is_out_of_date():
    for page, beginnings in NOT_RUN.items():
        begun = [block for language, block in blocks(page) if language != "bash"]
        begun += [
            shlex.join(words) for language, block in blocks(page) if language == "bash" for words in commands(block)
        ]
        for beginning, reason in beginnings.items():
            assert any(text.startswith(beginning) for text in begun), f"{page} has no {beginning!r} any more"
            assert reason


def test_what_is_said_of_librosa(folder):
    song(folder / "song.mp3")
    (block,) = (text for language, text in blocks("preprocessing.md") if language == "python")
    assert run_python(block, "preprocessing.md", {}) == "True\n"


def test_a_block_that_nobody_can_run_fails():
    with pytest.raises(AssertionError, match=r"some.md: how to run 'make all'"):
        run_command(["make", "all"], "some.md")
    with pytest.raises(NameError):
        run_python("no_such_name", "some.md", {})


# === The worked example of fine-tune.md ===

FINE_TUNE = "fine-tune.md"


def told(text):
    """The lines without what may differ elsewhere: numbers, bars, which stage was kept, which clips are the worst."""
    text = re.sub(r"-?[\d.]*\d|(?<= )\.(?=\s)", "#", re.sub(r"kept: (head|full)|[█-▏]+", "", text))
    text = text.replace("about # min", "about # s")  # on a busy machine
    return {" ".join(line.split()) for line in text.splitlines() if ", but " not in line}


def test_the_worked_example(tmp_path, monkeypatch):
    """It is run as it stands, in order, and prints what the page shows."""
    monkeypatch.chdir(tmp_path)
    names, printed, compared = {"__name__": "example"}, None, 0
    for language, text in blocks(FINE_TUNE):
        if language == "bash":
            printed = "".join(invoke(words[1:]).output for words in commands(text))
        elif language == "python":
            assert "Traceback" not in run_python(text, FINE_TUNE, names)
            printed = None
        elif printed is not None:  # what the command before it prints, or the last part of it
            missing = told(text) - told(printed)
            assert not missing, f"{sorted(missing)} are not in\n{printed}"
            printed, compared = None, compared + 1
    assert compared == 5
    assert names["tagger"].tags == ("bowed", "plucked", "struck") and names["quick"].report.kept == "head"
    assert names["result"].tagger.tags == ("struck",) and (tmp_path / "mine" / "report.png").exists()


def test_the_table_of_settings():
    section = text_of(FINE_TUNE).split("## Settings")[1].split("## ")[0]
    shown = dict(re.findall(r"^\| `(\w+)` \| `?([^`|]+?)`? \|", section, re.MULTILINE))
    assert shown == {
        field.name: format(field.default, "g") if type(field.default) is float else str(field.default)
        for field in dataclasses.fields(kmt.FineTuneSpec)
    }


def test_every_option_that_is_named_exists():
    options = {name for parameter in finetune.params for name in (*parameter.opts, *parameter.secondary_opts)}
    named = set(re.findall(r"--[a-z][a-z-]+", text_of(FINE_TUNE))) - {"--split"}
    of_tag = {"--model", "--threshold", "--unsure"}  # the page says how to use the tagger, too
    assert of_tag <= {name for parameter in tag.params for name in parameter.opts}
    assert named <= options | of_tag, named - options
