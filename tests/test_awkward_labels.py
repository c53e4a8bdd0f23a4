"""Tags with commas, quotation marks, other scripts or too few clips, on every path that a tag takes."""

import csv
import io
import json
import logging

import numpy as np
import pytest
import soundfile
from command_line import run

import keras_musictag as kmt
from keras_musictag.apps.library import LibraryRow, SearchError, WriteOptions, output, search, tag_library
from keras_musictag.datasets import DataError, Manifest, Row
from keras_musictag.errors import UnknownTagError
from keras_musictag.plots import save_figure
from keras_musictag.plots.style import new_axes
from keras_musictag.tagging.runtimes import is_installed
from keras_musictag.training.finetuning import FineTuneError, FineTuneSpec
from keras_musictag.utils.name_lists import join_names, split_names

RATE, PER_TAG = 16_000, 4
TAGS = (
    "Folk, World, & Country", "R&B; Soul", "NA", "-guitar", "日本語", "nan", "null", "true", '"Live"', '12" mix', "a|b",
    "rock 'n' roll", "A$AP $1", "[bold]", "<b>", "=SUM(1)",
)  # fmt: skip
QUICK = {"progress": False, "settings": FineTuneSpec(stages="head")}


def tone(number):
    """A quarter of a second of a sine; its pitch says which."""
    times = np.arange(RATE // 4) / RATE
    return 0.4 * np.sin(2 * np.pi * (200 + 37 * number) * times)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Four clips of each of the tags, one of `lonely`, and four of `broken` that are no sounds."""
    folder = tmp_path_factory.mktemp("sounds")
    rows = []
    for number, tag in enumerate((*TAGS, "lonely", "broken")):
        for clip in range(1 if tag == "lonely" else PER_TAG):
            path = folder / f"{number:02} {clip}.wav"
            soundfile.write(path, tone(PER_TAG * number + clip), RATE)
            if tag == "broken":
                path.write_bytes(b"no sound")
            rows.append(Row(path=path, tags=(tag,)))
    return Manifest(tuple(rows), (*TAGS, "lonely", "broken"))


@pytest.fixture(scope="module")
def tables(sounds, tmp_path_factory):
    """The same as tables of every kind."""
    folder = tmp_path_factory.mktemp("tables")
    sounds.to_csv(folder / "columns.csv")
    sounds.to_jsonl(folder / "lines.jsonl")
    text = io.StringIO()
    csv.writer(text).writerows([("file", "tags"), *((row.path, row.tags[0]) for row in sounds if row.tags != ("a|b",))])
    (folder / "list.csv").write_text(text.getvalue(), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def tuned(sounds, tmp_path_factory):
    """A tagger for all of the tags, saved and loaded."""
    folder = tmp_path_factory.mktemp("tuned") / "mine"
    patch = pytest.MonkeyPatch()
    patch.setenv("KERAS_MUSICTAG_CACHE", str(folder.with_name("cache")))
    try:
        kmt.load("tiny").fine_tune(sounds, folder=folder, **QUICK)
    finally:
        patch.undo()
    return folder


@pytest.fixture(scope="module")
def library(sounds, tuned, tmp_path_factory):
    """A folder with a clip of each tag, WAV or FLAC, and its table."""
    folder = tmp_path_factory.mktemp("library")
    (folder / "music").mkdir()
    for row in list(sounds)[: PER_TAG * len(TAGS) : PER_TAG]:
        (folder / "music" / row.path.name).write_bytes(row.path.read_bytes())
    soundfile.write(folder / "music" / "tone.flac", tone(0), RATE)
    everything = WriteOptions(most=len(TAGS), min_prob=0)
    tag_library(folder / "music", folder / "tags.jsonl", tuned, workers=1, write_tags=everything, dry_run=False)
    return folder


def strict_json(text):
    """What JSON says; NaN and Infinity, which are no JSON, are errors."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))


# === Lists in one line ===


@pytest.mark.parametrize("separator", [",", ";", "|"])
def test_a_list_is_read_as_it_was_written(separator):
    text = join_names(TAGS, separator)
    assert tuple(split_names(text, separator)) == TAGS
    assert tuple(next(csv.reader([text], delimiter=separator, skipinitialspace=True))) == TAGS


def test_lists_of_plain_names_are_plain():
    assert join_names(["guitar", "folk", '12" mix'], ";") == 'guitar; folk; 12" mix'
    assert split_names(' dub ,garage, 12" mix') == ["dub", "garage", '12" mix']


@pytest.mark.parametrize("text", ["", " ", "a,,b", "a,", '"a', '"a" b', "a\nb"])
def test_lists_that_are_refused(text):
    with pytest.raises(ValueError, match=r"Write names with ',' between them, those that contain it in double quot"):
        split_names(text)


# === Tables ===


def test_tables_keep_the_tags(sounds, tables):
    for name in ("columns.csv", "lines.jsonl"):
        assert Manifest.load(tables / name) == sounds
    listed = Manifest.load(tables / "list.csv")
    assert set(listed.tags) == set(sounds.tags) - {"a|b"} and [row.tags for row in listed] == [
        row.tags for row in sounds if row.tags != ("a|b",)
    ]


def test_parquet_keeps_the_tags(sounds, tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = {"file": [str(row.path) for row in sounds], "tags": [list(row.tags) for row in sounds]}
    parquet.write_table(arrow.table(rows), tmp_path / "a.parquet")
    assert [row.tags for row in Manifest.load(tmp_path / "a.parquet")] == [row.tags for row in sounds]


def test_spaces_around_tags_are_none(sounds, tmp_path):
    (tmp_path / "a.csv").write_text('file, tags \na.wav, NA | "日本語" \nb.wav,"  -guitar"\n', encoding="utf-8")
    assert [row.tags for row in Manifest.load(tmp_path / "a.csv")] == [("NA", '"日本語"'), ("-guitar",)]
    (tmp_path / "b.csv").write_text("file, NA , -guitar\na.wav,1,0\n", encoding="utf-8")
    assert Manifest.load(tmp_path / "b.csv").tags == ("NA", "-guitar")
    with pytest.raises(DataError, match=r"A tag must be a name without spaces around it; got 'NA '\."):
        sounds.with_tags(["NA "])
    with pytest.raises(DataError, match=r"A tag must be one line without control characters; got 'a\\nb'\. Rename"):
        Row(path="a.wav", tags=("a\nb",))


# === Fine-tuning ===


def test_all_tags_are_learned_and_loaded(tuned, sounds):
    tagger = kmt.load(tuned)
    assert tagger.tags == TAGS
    for row in list(sounds)[: PER_TAG * len(TAGS) : PER_TAG]:
        tags = tagger.tag(row.path)
        assert max(tags, key=tags.get) == row.tags[0] and np.isfinite(list(tags.values())).all()
    card = (tuned / "README.md").read_text(encoding="utf-8")
    assert f"tags, in the order of the outputs: {join_names(TAGS)}." in card


def test_the_report_has_no_nan(tuned):
    report = strict_json((tuned / "report.json").read_text(encoding="utf-8"))
    assert tuple(report["tags"]) == TAGS and 0 <= report["accuracy"] <= 1 and len(report["confusion"]) == len(TAGS)
    assert "NaN" not in (tuned / "spec.json").read_text(encoding="utf-8")


def test_hopeless_tags_are_named_before_training(sounds, tmp_path, monkeypatch, caplog):
    from keras_musictag.training.finetuning import fine_tune_run as fitting

    def reached(*_, **__):
        raise InterruptedError

    monkeypatch.setattr(fitting, "carry_out", reached)
    with pytest.raises(InterruptedError), caplog.at_level(logging.WARNING):
        kmt.load("tiny").fine_tune(sounds, **QUICK)
    assert (
        "left out, being on fewer than 2 training clips: 'lonely' (1 of 1 clips usable), 'broken' (0 of 4 clips usable)"
    ) in caplog.text
    assert "the tag 'lonely' has 1 rows in all, fewer than 2 (min_rows); add some, or leave the tag out" in caplog.text
    with pytest.raises(FineTuneError, match=r"No tag is on 2 training clips(?s:.*)the tag 'lonely' has 1 rows in all"):
        kmt.load("tiny").fine_tune(sounds, ["lonely"], **QUICK)


def test_a_tag_whose_clips_turn_out_to_be_broken_is_named(tmp_path):
    """Headers are fine, so that only decoding finds it, which comes before training."""
    for number in range(12):
        folder = tmp_path / "sounds" / ("silent", "NA", "-guitar")[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{number}.flac"
        soundfile.write(path, tone(number), RATE)
        if folder.name == "silent":
            path.write_bytes(path.read_bytes()[: 200 + number])
    with pytest.raises(FineTuneError, match=r"no training clip has 'silent' \(0 of 4 clips usable\)\. Repair them, or"):
        kmt.load("tiny").fine_tune(tmp_path / "sounds", validation=None, **QUICK)


def test_one_clip_that_is_left_of_two(sounds, tmp_path):
    """Few as they are, the clips give numbers."""
    few = Manifest((*list(sounds)[:2], *list(sounds)[4:6]), TAGS[:2])
    tagger = kmt.load("tiny").fine_tune(few, validation=0.5, **QUICK)
    assert tagger.tags == TAGS[:2] and np.isfinite(list(tagger.tag(few[0].path).values())).all()
    strict_json(json.dumps(tagger.report.to_dict()))


def test_tags_on_the_command_line(tables):
    wanted = ("-guitar", "Folk, World, & Country", "null", '"Live"')
    assert join_names(wanted) == '-guitar, "Folk, World, & Country", null, """Live"""'
    command = ("finetune", "tiny", "--data", tables / "list.csv", "--dry-run", "--json")
    result = run(*command, "--tags", join_names(wanted))
    assert tuple(strict_json(result.stdout)["tags"]) == wanted, result.stderr
    result = run(*command, "--tags", "Folk, World, & Country, NA")
    assert result.exit_code == 2 and "Unknown tag 'Folk'." in result.stderr
    assert '=SUM(1), A$AP $1, "Folk, World, & Country", NA' in result.stderr  # as it has to be written


def test_a_dry_run_names_hopeless_tags(tables):
    result = run("finetune", "tiny", "--data", tables / "list.csv", "--dry-run", "--json")
    planned = strict_json(result.stdout)
    assert result.exit_code == 1 and set(planned["tags"]) == set(TAGS) - {"a|b"}
    assert planned["notes"][0].startswith("left out, being on fewer than 2 training clips: 'broken' (0 of 4 clips")


def test_unknown_tags_are_listed_so_that_they_can_be_copied():
    with pytest.raises(UnknownTagError, match=r"Known: NA, \"Folk, World, & Country\"\."):
        kmt.models.vocabulary.column_of("jazz", ["NA", "Folk, World, & Country"])


# === Results ===


def test_results_as_csv_and_json(tuned, library):
    name = "00 0.wav"
    result = run("tag", library / "music" / name, "--model", tuned, "--csv", "--top", len(TAGS))
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert {row["tag"] for row in rows} == set(TAGS) and rows[0]["tag"] == "Folk, World, & Country"
    result = run("tag", library / "music" / name, "--model", tuned, "--json", "--top", len(TAGS))
    assert set(strict_json(result.stdout)["tags"]) == set(TAGS)
    result = run("taggram", library / "music" / name, "--model", tuned, "--csv")
    assert tuple(next(csv.reader(io.StringIO(result.stdout)))) == ("time", *TAGS)


def test_scores_as_csv_and_json(tuned, tables, tmp_path):
    listed = Manifest.load(tables / "columns.csv").with_tags(TAGS).filter(lambda row: bool(row.tags))
    listed.to_csv(tmp_path / "some.csv")
    files = ("--json", tmp_path / "a.json", "--csv", tmp_path / "a.csv")
    result = run("evaluate", tuned, "--data", tmp_path / "some.csv", "--split", "all", *files)
    assert result.exit_code == 0, result.stderr
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        assert set(TAGS) <= {cell for row in csv.reader(file) for cell in row}
    strict_json((tmp_path / "a.json").read_text(encoding="utf-8"))


def test_pictures_are_drawn_with_one_warning(tmp_path, caplog):
    axes = new_axes(3, 3)
    axes.set_title("日本語 \U00012000", parse_math=False)
    save_figure(axes, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    assert len(caplog.records) == 1 and "a.png: its font has no " in caplog.text


# === Exports ===


@pytest.mark.parametrize(
    ("format", "package"), [("onnx", "onnxruntime"), ("litert", "litert"), ("openvino", "openvino")]
)
def test_exports_have_the_tags(tuned, library, tmp_path, format, package):
    if not is_installed(package):
        pytest.skip(f"{package} is not installed")
    kmt.load(tuned).export(tmp_path / "export", format=format)
    exported = kmt.load(tmp_path / "export")
    assert exported.tags == TAGS
    assert next(iter(exported.tag(library / "music" / "03 0.wav", top=1))) == TAGS[3]


# === Libraries ===


def test_files_have_their_tags(library):
    mutagen = pytest.importorskip("mutagen")
    with (library / "tags.jsonl").open(encoding="utf-8") as file:
        rows = [strict_json(line) for line in file]
    assert len(rows) == len(TAGS) + 1
    for row in rows:
        tags = mutagen.File(row["path"]).tags
        written = tags["MUSICTAG"] if row["path"].endswith(".flac") else tags["TXXX:MUSICTAG"].text
        assert list(written) == list(row["tags"]) and set(written) == set(TAGS)


def test_tables_have_the_tags(library, tmp_path):
    with (library / "tags.jsonl").open(encoding="utf-8") as file:
        rows = [LibraryRow(**strict_json(line)) for line in file]
    output.write(rows, tmp_path / "tags.csv")
    with (tmp_path / "tags.csv").open(encoding="utf-8", newline="") as file:
        assert [strict_json(row["tags"]) for row in csv.DictReader(file)] == [row.tags for row in rows]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A file for each tag, named by its number, that has this tag only."""
    pytest.importorskip("duckdb")
    pytest.importorskip("pyarrow")
    path = tmp_path_factory.mktemp("table") / "tags.parquet"
    known = {"model": "m", "weights_sha256": "w", "spec_digest": "s", "tags_kept": "all"}
    rows = [
        LibraryRow(path=str(number), tags={tag: 0.9}, duration_s=9.0, tagged_at="2026-01-01T00:00:00Z", **known)
        for number, tag in enumerate((*TAGS, "metal", "1990"))
    ]
    output.write(rows, path)
    return path


def found(table, where):
    return [int(file.path) for file in search(table, where)]


@pytest.mark.parametrize("tag", TAGS)
def test_every_tag_is_found(table, tag):
    (number,) = found(table, f"{tag} > 0.5")
    assert TAGS[number] == tag and found(table, tag) == [number]
    quoted = '"' + tag.replace('"', '""') + '"'
    assert found(table, quoted) == [number] and found(table, f"{quoted} > 0.5 or metal > 1") == [number]
    others = found(table, f"not {tag}")
    assert sorted([number, *others]) == list(range(len(TAGS) + 2))


def test_sql_stays_what_it_is(table):
    every = list(range(len(TAGS) + 2))
    assert found(table, "duration_s is not null and metal is not NULL") == every
    assert found(table, "duration_s is null") == []
    assert found(table, "duration_s < 1990") == every and found(table, '"1990"') == [len(TAGS) + 1]
    assert found(table, "path = 'null'") == []
    assert found(table, "NULL or TRUE") == [TAGS.index("null"), TAGS.index("true")]
    with pytest.raises(SearchError, match="is no condition"):
        search(table, "metal >")


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("-guitar > 0.5", "No such option"),
        ("-metal > 0.5", "--model etal > 0.5 is only used with --like and --unlike"),
        ("-noise", "'oise' is not a valid integer range"),
    ],
)
def test_a_dash_that_looks_like_an_option(table, where, message):
    result = run("search", table, where)
    assert result.exit_code == 2 and message in result.stderr
    assert "A tag that begins with a dash goes in double quotation marks: '\"-guitar\" > 0.5'." in result.stderr


def test_a_dash_in_quotation_marks_or_after_two_dashes(table):
    for arguments in ((table, '"-guitar" > 0.5'), ("--json", "--", table, "-guitar > 0.5")):
        result = run("search", *arguments)
        assert result.exit_code == 0 and "-guitar" in result.stdout and result.stdout.count("\n") == 1
