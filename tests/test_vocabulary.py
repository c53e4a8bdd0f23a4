"""Names and kinds of tags: the tables, and what resolves them."""

import dataclasses
import json
from pathlib import Path

import click.testing
import numpy as np
import pytest

import keras_musictag as kmt
from keras_musictag.cli import main
from keras_musictag.errors import SpecError, UnknownTagError
from keras_musictag.models import vocabulary
from keras_musictag.models.vocabulary import KINDS, Vocabulary

FOLDER = Path(vocabulary.__file__).with_name("tags")
LISTS = sorted(path.stem for path in FOLDER.glob("*.txt"))
NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000).astype("float32")
OWN = {"tone": "instrument", "noise": "mood"}


def tags_of(name):
    return tuple((FOLDER / f"{name}.txt").read_text(encoding="utf-8").splitlines())


def of_kind(name, *kinds):
    words = Vocabulary.of(tags_of(name))
    return {words.names[column] for column in words.columns(kinds=kinds)}


def with_kinds(tags, kinds):
    """The tiny model with other tags."""
    tiny = kmt.load("tiny")
    return tiny.like(dataclasses.replace(tiny.spec, tags=tags, kinds=kinds, example=None, metrics=()), tiny.core)


@pytest.mark.parametrize("name", LISTS)
def test_table_has_the_tags_of_the_list_in_its_order(name):
    header, *lines = (FOLDER / f"{name}.kinds.tsv").read_text(encoding="utf-8").splitlines()
    tags, kinds, names = zip(*(line.split("\t") for line in lines), strict=True)
    assert header == "tag\tkind\tname" and tags == tags_of(name) and set(kinds) <= set(KINDS)
    assert len({shown.casefold() for shown in names}) == len(names)
    words = Vocabulary.of(tags)
    assert words.names == names and words.kinds == kinds
    assert [words.column(tag) for tag in tags] == [words.column(shown) for shown in names] == list(range(len(tags)))


def test_titles_say_whose_tags_they_are():
    by_title = {Vocabulary.of(tags_of(name)).title for name in LISTS}
    assert by_title == {"MagnaTagATune", "Million Song Dataset", "MTG-Jamendo", "AudioSet"}
    assert Vocabulary.of(Vocabulary.of(tags_of("jamendo50")).names).title == "MTG-Jamendo", "in short names, too"
    assert Vocabulary.of(("dub", "sad")).title == Vocabulary.of(("dub",), {"dub": "genre"}).title == "own tags"


def test_order_of_outputs_is_free():
    words = Vocabulary.of(tags_of("jamendo50")[::-1])
    assert words.names[0] == "relaxing" and words.kinds[0] == "mood" and words.column("genre---alternative") == 49


def test_kinds_are_what_people_look_for():
    assert of_kind("msd50", "era") == {"60s", "70s", "80s", "90s", "00s", "oldies"}
    assert of_kind("mtt50", "tempo") == {"slow", "fast"}
    assert {"jazz", "film", "piano"} & of_kind("jamendo50", "genre", "mood") == {"jazz", "film"}
    assert of_kind("jamendo50", "voice") == {"voice"}
    music = of_kind("audioset527", "genre", "instrument", "mood", "voice")
    assert {"jazz", "hip hop", "happy", "saxophone", "rapping"} <= music and len(music) == 152
    assert {"speech", "dog", "engine", "silence", "rattle"} <= of_kind("audioset527", "other")


def test_columns_of_tags_and_kinds():
    words = Vocabulary.of(("a", "b", "c"), {"a": "mood", "c": "era"})
    assert words.columns() == [0, 1, 2] and words.columns(["c", "a"]) == [2, 0] and words.columns("b") == [1]
    assert words.columns(["c", "a"], {"mood", "other"}) == [0] and words.columns(kinds="other") == [1]
    with pytest.raises(UnknownTagError, match="Unknown tag 'd'"):
        words.columns(["d"])
    with pytest.raises(ValueError, match=r"Unknown kinds of tags: speech\. Known: genre, instrument, mood, voice"):
        words.columns(kinds=["mood", "speech"])
    with pytest.raises(ValueError, match="none given"):
        words.columns(kinds=())


def test_tagger_chooses_by_kind():
    tiny = kmt.load("tiny")
    own = with_kinds(tiny.tags, OWN)
    everything = tiny.tag(NOISE, sr=16_000)
    chosen = own.tag(NOISE, sr=16_000, kinds={"instrument", "mood"})
    assert chosen == {tag: p for tag, p in everything.items() if tag in OWN}
    assert list(own.tag(NOISE, sr=16_000, kinds={"mood"}, tags=["tone", "noise"])) == ["noise"]
    (result,) = own.tag_many([(NOISE, 16_000)], kinds="mood")
    assert list(result.tags) == ["noise"]
    gram, all_tags = own.taggram(NOISE, sr=16_000, kinds={"mood"}), own.taggram(NOISE, sr=16_000)
    assert gram.tags == ("noise",) and np.array_equal(gram["noise"], all_tags["noise"])


def test_people_read_names_and_may_write_either():
    tags = tags_of("jamendo50")
    gram = kmt.Taggram(Vocabulary.of(tags).names, np.zeros(1), np.arange(50.0)[None], 1.0, 1.0)
    assert gram["jazz"] == gram["genre---jazz"] == [tags.index("genre---jazz")]
    with pytest.raises(UnknownTagError, match="Unknown tag 'genre---jaz'"):
        gram["genre---jaz"]


def test_kinds_that_nobody_said():
    tiny = kmt.load("tiny")
    for call in (tiny.tag, tiny.taggram):
        with pytest.raises(ValueError, match=r"kinds of this model's tags are not known.*add kinds"):
            call(NOISE, sr=16_000, kinds={"mood"})
    with pytest.raises(ValueError, match="not known"):
        tiny.tag_many([(NOISE, 16_000)], kinds={"mood"})


def test_spec_says_kinds(tmp_path):
    tiny = kmt.model_info("tiny")
    assert "kinds" not in tiny.to_dict(), "folders without them stay as they are"
    own = dataclasses.replace(tiny, kinds=OWN)
    assert type(own).from_dict(json.loads(own.to_json())) == dataclasses.replace(own, root=None)
    assert own.retrained().kinds == OWN and own.retrained(tags=("dub",)).kinds == {}
    with pytest.raises(SpecError, match="kinds names 'dub', which is not a tag"):
        dataclasses.replace(tiny, kinds={"dub": "genre"})
    with pytest.raises(SpecError, match=r"kinds\['tone'\] must be one of genre, .*; got 'sound'"):
        dataclasses.replace(tiny, kinds={"tone": "sound"})
    with_kinds(tiny.tags, OWN).save(tmp_path / "own")
    assert list(kmt.load(tmp_path / "own").tag(NOISE, sr=16_000, kinds={"mood"})) == ["noise"]


def test_command_line(tmp_path):
    with_kinds(kmt.model_info("tiny").tags, OWN).save(tmp_path / "own")
    run = click.testing.CliRunner().invoke
    clip, own = str(kmt.demo_clip()), str(tmp_path / "own")
    result = run(main, ["tag", clip, "-m", own, "--kind", "mood", "--kind", "instrument", "--json"])
    assert set(json.loads(result.stdout)["tags"]) == set(OWN)
    result = run(main, ["taggram", clip, "-m", own, "--kind", "mood", "--csv"])
    assert result.stdout.splitlines()[0] == "time,noise"
    result = run(main, ["tag", clip, "-m", own, "--kind", "speech"])
    assert result.exit_code == 2 and "'genre', 'instrument', 'mood'" in result.stderr
    result = run(main, ["tag", clip, "-m", "tiny", "--kind", "mood"])
    assert result.exit_code == 2 and "kinds of this model's tags are not known" in result.stderr
