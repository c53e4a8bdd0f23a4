"""Cards say what the specs say, leave nothing out, and the ones in the zoo are current."""

import dataclasses
import json
import shutil

import pytest

import keras_musictag as kmt
from keras_musictag.audio.demo import SECTIONS
from keras_musictag.errors import SpecError
from keras_musictag.models import cards, registry
from keras_musictag.models.cards import empty_fields, model_card, write_cards
from keras_musictag.models.facts import INTERVALS, SCORES, Latency, TrainingData
from keras_musictag.models.registry import zoo_folder

ZOO = sorted(path.parent.name for path in zoo_folder().glob("*/spec.json"))

# What cards have of https://huggingface.co/docs/hub/repositories-licenses and of the fields of hub-docs/modelcard.md.
HUB_LICENSES = {"apache-2.0", "isc", "mit"}
HUB_FIELDS = {
    "library_name", "license", "license_name", "license_link", "pipeline_tag", "tags", "datasets", "metrics",
    "model-index",
}  # fmt: skip

METRIC = {"dataset": "Some Set", "split": "test", "n": 12, "roc_auc": 0.5, "source": "a command"}
LATENCY = {
    "batch": 1,
    "median_ms": 2.5,
    "p10_ms": 2.0,
    "p90_ms": 4.25,
    "repetitions": 100,
    "machine": "Some CPU",
    "threads": 2,
    "backend": "Keras 3 on jax",
    "date": "2026-01-31",
    "command": "python benchmarks/latency.py x",
}


def section(card, title):
    return card.split(f"\n## {title}\n")[1].split("\n## ")[0]


def front_matter(card):
    return pytest.importorskip("yaml").safe_load(card.split("---\n")[1])


@pytest.fixture
def full():
    """A spec that leaves nothing empty."""
    return dataclasses.replace(
        kmt.model_info("tiny"),
        metrics=(METRIC,),
        intended_use="For this, not for that.",
        limits=("No bass.",),
        training_data=(TrainingData(name="Some Set", role="labelled", licence="CC0-1.0", n=1200),),
        latency=(Latency(scope="file", **LATENCY),),
        citation="@misc{x}",
    )


# === The zoo ===


@pytest.mark.parametrize("name", ZOO)
def test_the_card_in_the_zoo_is_current(name):
    """After changing a spec: python -m keras_musictag.models.cards."""
    assert (zoo_folder() / name / "README.md").read_text(encoding="utf-8") == model_card(kmt.model_info(name))


@pytest.mark.parametrize("name", ZOO)
def test_no_model_with_weights_leaves_a_field_empty(name):
    spec = kmt.model_info(name)
    if spec.weights is None:
        assert empty_fields(spec)[0] == "weights"
        assert "There are no weights yet." in model_card(spec)
        return
    assert empty_fields(spec) == []
    assert not {"Not stated.", "Not measured.", "Not stated. From the spec:"} & set(model_card(spec).splitlines())


@pytest.mark.parametrize("name", ZOO)
def test_front_matter_is_what_the_hub_reads(name):
    from huggingface_hub import ModelCard

    spec = kmt.model_info(name)
    card = ModelCard.load(zoo_folder() / name / "README.md")
    assert card.data.library_name == "keras_musictag" and card.data.pipeline_tag == "audio-classification"
    assert card.data.license == spec.license.lower() and card.data.license in HUB_LICENSES
    assert card.text.strip().startswith(f"# {name}")
    scores = [metric[key] for metric in spec.metrics for key in SCORES if key in metric]
    assert [result.metric_value for result in card.data.eval_results or []] == scores
    assert [result.dataset_args["n"] for result in card.data.eval_results] == [
        metric["n"] for metric in spec.metrics for key in SCORES if key in metric
    ]


def test_front_matter_has_only_what_the_hub_knows(full):
    fields = [front_matter(model_card(spec)) for spec in (full, *map(kmt.model_info, ZOO))]
    for card in fields:
        assert set(card) <= HUB_FIELDS
        assert all(isinstance(tag, str) for tag in card["tags"]) and len(set(card["tags"])) == len(card["tags"])
        assert set(card.get("metrics", ())) <= {"accuracy", "roc_auc"}, (
            "https://huggingface.co/metrics has no other of ours"
        )


@pytest.mark.parametrize("name", ZOO)
def test_the_hubs_client_writes_back_what_it_has_read(name):
    from huggingface_hub import ModelCard

    card = ModelCard.load(zoo_folder() / name / "README.md")
    again = ModelCard(str(card))
    assert again.data.to_dict() == card.data.to_dict() and again.text == card.text
    original = front_matter(str(ModelCard.load(zoo_folder() / name / "README.md").content))
    assert set(again.data.to_dict()) == set(original)


@pytest.mark.parametrize("name", ZOO)
def test_the_example_is_what_the_model_says(name, published_weights):
    """After changing weights or the clip: python benchmarks/examples.py."""
    tagger = kmt.load(name)
    said = tagger.tag(kmt.demo_clip(), duration=SECTIONS[0].duration, top=5)
    assert list(tagger.spec.example) == list(said)
    # Three decimals are written. Backends and processors differ by 1e-5 at most (tests/test_embedded.py).
    assert list(said.values()) == pytest.approx(list(tagger.spec.example.values()), abs=6e-4)


@pytest.mark.parametrize("name", ZOO)
def test_scores_in_the_zoo_are_spelt_as_cards_know_them(name):
    known = {"dataset", "split", "n", "source", "url", "machine", "date", "note", *SCORES}
    known |= {f"{key}_{end}" for key in INTERVALS for end in ("low", "high", "per_tag")}
    for metric in kmt.model_info(name).metrics:
        assert set(metric) <= known


# === Sections ===


def test_a_figure_comes_with_its_data(full):
    table = section(model_card(full), "Evaluation")
    assert "| data set | split | n | ROC-AUC |" in table
    assert "| Some Set | test | 12 | 0.5 |" in table
    assert "- **Some Set, test.** Source: a command." in table
    assert "teacher" not in table and "interval" not in table


def test_only_filled_columns_are_shown_and_intervals_stand_beside_values(full):
    agreement = {"correlation": 0.87654, "teacher_roc_auc": 0.95, "note": "by artist", "url": "https://example.org/x"}
    interval = {"roc_auc": 0.912, "roc_auc_low": 0.901, "roc_auc_high": 0.9216}
    spec = dataclasses.replace(full, metrics=({**METRIC, **interval}, {**METRIC, "roc_auc": None, **agreement}))
    table = section(model_card(spec), "Evaluation").splitlines()
    assert table[1] == (
        "| data set | split | n | ROC-AUC | correlation with the teacher | ROC-AUC against the teacher's top tenth |"
    )
    assert table[3] == "| Some Set | test | 12 | 0.912 [0.901, 0.922] |  |  |"
    assert table[4] == "| Some Set | test | 12 |  | 0.8765 | 0.95 |"
    assert table[7] == "- **Some Set, test.** by artist. Source: [a command](https://example.org/x)."
    assert any("95 % intervals from a bootstrap over groups" in line for line in table)
    assert any("measure agreement with the teacher's predictions" in line for line in table)


def test_scores_per_tag_are_listed(full):
    spec = dataclasses.replace(full, metrics=({**METRIC, "roc_auc_per_tag": {"tone": 0.99444, "noise": 1}},))
    assert "ROC-AUC per tag (Some Set, test): tone 0.9944, noise 1." in section(model_card(spec), "Evaluation")


def test_training_data_with_licences(full):
    linked = TrainingData(name="Other", role="teacher", licence="ISC", url="https://example.org", note="asked")
    card = model_card(dataclasses.replace(full, training_data=(*full.training_data, linked)))
    table = section(card, "Training data and licences")
    assert "| Some Set | audio and labels | 1,200 | CC0-1.0 |  |" in table
    assert "| [Other](https://example.org) | teacher |  | ISC | asked |" in table


def test_latency_says_where_it_was_measured(full):
    entries = (Latency(scope="log_mel", **LATENCY), *full.latency, Latency(scope="file", **{**LATENCY, "threads": 1}))
    lines = section(model_card(dataclasses.replace(full, latency=entries)), "Latency").splitlines()
    assert "| log-mel | 1 | 2.50 | 2.00 | 4.25 | 403 |" in lines, "1.008 s in 2.5 ms"
    assert "| file (44.1 kHz stereo FLAC) | 1 | 2.50 | 2.00 | 4.25 | 403 |" in lines
    where = "Some CPU, {}, Keras 3 on jax, 100 calls, 2026-01-31: `python benchmarks/latency.py x`"
    assert [where.format("2 threads"), where.format("1 thread")] == [line for line in lines if "Some CPU" in line]


def test_use_limits_citation(full):
    card = model_card(full, "mine")
    assert "For this, not for that." in section(card, "Intended use")
    assert 'load("mine")' in section(card, "Use") and "--model mine`" in section(card, "Use")
    assert "- No bass." in section(card, "Limits")
    assert "```bibtex\n@misc{x}\n```" in section(card, "Cite")
    assert "```" not in section(model_card(dataclasses.replace(full, citation="Name us.")), "Cite")


def test_the_use_runs_whatever_the_folder_is_called(full):
    use = section(model_card(full, 'the "best"'), "Use")
    assert r"""load("the \"best\"")""" in use and """--model 'the "best"'`""" in use


def test_the_first_paragraph_describes_the_output(full):
    assert "the probability of each of 5 tags: tone, chord, noise, clicks, sweep." in model_card(full)
    chooses = dataclasses.replace(
        full, tags=tuple("abcdefg"), config={"classifier_activation": "softmax"}, example=None
    )
    assert "of 7 exclusive tags, which add up to 1: a, b, c, d, e and 2 more." in model_card(chooses)


def test_the_example(full):
    card = model_card(dataclasses.replace(full, example={"noise": 0.5, "tone": 0.04}))
    assert 'demo_clip(), duration=6.6, top=2)\n# {"noise": 0.500, "tone": 0.040}\n' in section(card, "Example")
    assert "## Example" not in model_card(dataclasses.replace(full, example=None))
    assert full.retrained().example is None


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ([("tone", 0.5)], r"example must be an object; got \[\('tone', 0.5\)\]"),
        ({"banjo": 0.5}, "example names 'banjo', which is not a tag of the model"),
        ({"tone": 1.5}, r"example\['tone'\] must be a number from 0 to 1; got 1.5"),
        ({"tone": None}, r"example\['tone'\] must be a number from 0 to 1; got None"),
    ],
)
def test_an_example_that_no_model_gives(full, example, message):
    with pytest.raises(SpecError, match=message):
        dataclasses.replace(full, example=example)


def test_preprocessing_is_a_table(full):
    table = section(model_card(full), "Input")
    assert "resampled to 16,000 Hz (`soxr_hq`)" in table and "hop 256 (16.0 ms), hann window of 512, power 2" in table
    assert "| scale | log10(1 + 10000 x mel) |" in table and "32, 0 to 8,000 Hz, Slaney's formula" in table
    mel = dataclasses.replace(full.mel, scaling="db", top_db=80.0, htk=True, norm=None, fmax=6000.0)
    table = section(model_card(dataclasses.replace(full, mel=mel)), "Input")
    assert "`librosa.power_to_db(ref=1, amin=1e-10, top_db=80)`" in table
    assert "32, 0 to 6,000 Hz, HTK's formula, not normalised" in table


def test_limits_that_are_not_stated_follow_from_the_spec(full):
    limits = section(model_card(full.retrained(weights=full.weights, tags=("a", "b"))), "Limits")
    assert "- It predicts 2 tags only." in limits and "windows of 1 s and frequencies up to 8,000 Hz" in limits


def test_what_is_not_known_is_said_to_be_missing(full):
    card = model_card(full.retrained(weights=full.weights))
    for title in ("Intended use", "Training data and licences", "Limits", "Cite", "Licence"):
        assert "ot stated." in section(card, title)
    for title in ("Evaluation", "Latency"):
        assert section(card, title).strip() == "Not measured."


def test_without_weights_nothing_is_claimed(full):
    card = model_card(dataclasses.replace(full, weights=None, weights_help="Make some.", license="", metrics=()))
    assert "There are no weights yet. Make some." in card
    assert "They will be trained on:" in card and "Expected limits of the weights:" in card
    assert "load(" not in card


# === Front matter ===


def test_data_sets_of_the_hub_are_linked(full):
    hosted = TrainingData(
        name="A", role="labelled", licence="MIT", url="https://huggingface.co/datasets/someone/music-tags"
    )
    fields = front_matter(model_card(dataclasses.replace(full, training_data=(hosted, *full.training_data, hosted))))
    assert fields["datasets"] == ["someone/music-tags"]
    assert "datasets" not in front_matter(model_card(full))


@pytest.mark.parametrize(
    ("license", "expected"),
    [
        ("ISC", {"license": "isc"}),
        (
            "CC-BY-NC-SA-1.0",
            {
                "license": "other",
                "license_name": "cc-by-nc-sa-1.0",
                "license_link": "https://spdx.org/licenses/CC-BY-NC-SA-1.0.html",
            },
        ),
        ("Ask: us!", {"license": "other", "license_name": "ask-us"}),
        ("", {}),
    ],
)
def test_licences_the_hub_does_not_know(full, license, expected):
    fields = front_matter(model_card(dataclasses.replace(full, license=license)))
    assert {key: value for key, value in fields.items() if key.startswith("license")} == expected


def test_model_index_keeps_odd_names(full):
    name = 'The "Set": # 1, Öre'
    metric = {**METRIC, "dataset": name, "url": "https://example.org", "pr_auc": 0.25}
    card = model_card(dataclasses.replace(full, metrics=(metric, {**METRIC, "roc_auc": None})))
    (model,) = front_matter(card)["model-index"]
    (result,) = model["results"]  # an entry without a score says nothing
    assert result["dataset"] == {"type": "the-set-1-re", "name": name, "split": "test", "args": {"n": 12}}
    assert [(metric["type"], metric["value"]) for metric in result["metrics"]] == [("roc_auc", 0.5), ("pr_auc", 0.25)]
    assert result["source"] == {"name": "a command", "url": "https://example.org"}


# === Completeness ===


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("description", ""),
        ("intended_use", " "),
        ("trained_on", ""),
        ("training_data", ()),
        ("license", ""),
        ("metrics", ()),
        ("metrics", ({**METRIC, "roc_auc": None},)),
        ("latency", ()),
        ("limits", ()),
        ("citation", ""),
        ("weights", None),
    ],
)
def test_every_empty_field_is_named(full, field, value):
    assert empty_fields(full) == []
    assert empty_fields(dataclasses.replace(full, **{field: value})) == [field]


def test_the_size_of_the_weights_is_needed(full):
    spec = dataclasses.replace(full, weights=dataclasses.replace(full.weights, size=None))
    assert empty_fields(spec) == ["weights.size"]


def test_writing_cards_fails_over_empty_fields(full, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(registry, "zoo_folder", lambda: tmp_path)
    for name, spec in {"full": full, "bare": dataclasses.replace(full, weights=None, citation="")}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "spec.json").write_text(dataclasses.replace(spec, name=name).to_json(), encoding="utf-8")
    assert cards.main() == 0  # what has no weights may be incomplete
    assert capsys.readouterr().out == "Cards written: bare, full.\n"
    assert write_cards() == []
    path = tmp_path / "full" / "spec.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "limits": [], "citation": ""}))
    assert cards.main() == 1
    captured = capsys.readouterr()
    assert captured.out == "Cards written: full.\n"
    assert captured.err == "The spec.json of full has empty fields: limits, citation.\n"
    shutil.rmtree(tmp_path / "full")
    assert cards.main() == 0
