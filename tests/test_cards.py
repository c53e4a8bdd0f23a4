"""Cards say what the specs say, and the ones in the zoo are current."""

import dataclasses

import pytest

import keras_musictag as kmt
from keras_musictag.cards import model_card
from keras_musictag.registry import zoo_folder

ZOO = sorted(path.parent.name for path in zoo_folder().glob("*/spec.json"))


@pytest.mark.parametrize("name", ZOO)
def test_the_card_in_the_zoo_is_current(name):
    """After changing a spec: python -m keras_musictag.cards."""
    assert (zoo_folder() / name / "README.md").read_text(encoding="utf-8") == model_card(kmt.model_info(name))


@pytest.mark.parametrize("name", ZOO)
def test_front_matter_is_what_the_hub_reads(name):
    yaml = pytest.importorskip("yaml")
    spec = kmt.model_info(name)
    _, front, body = model_card(spec).split("---\n", 2)
    fields = yaml.safe_load(front)
    assert fields["library_name"] == "keras" and fields["pipeline_tag"] == "audio-classification"
    assert fields.get("license") == (spec.license.lower() or None)
    assert body.strip().startswith(f"# {name}")


def test_a_figure_comes_with_its_data():
    spec = dataclasses.replace(
        kmt.model_info("tiny"),
        metrics=({"dataset": "Some Set", "split": "test", "n": 12, "roc_auc": 0.5, "source": "a command"},),
    )
    assert "| Some Set | test | 12 | 0.5 |  | a command |" in model_card(spec)
