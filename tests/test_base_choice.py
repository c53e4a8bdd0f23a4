"""`choose_base` and `finetune --base auto`: what is tried, what is chosen, and what is left out."""

import dataclasses
import json

import numpy as np
import pytest
from click.testing import CliRunner
from own_tags import own_tags

import keras_musictag as kmt
from keras_musictag.apps.probing import base_choice as module
from keras_musictag.cli import main
from keras_musictag.training.finetuning import FineTuneError
from keras_musictag.training.finetuning.labelled_data import prepare


@pytest.fixture(scope="module")
def music(tmp_path_factory):
    """Sounds of three kinds; a good base, and two of the same network whose weights are of no use."""
    folder = tmp_path_factory.mktemp("bases")
    own_tags(folder / "sounds", per_tag=6)
    tiny = kmt.load("tiny")
    tiny.save(folder / "good")
    for name, weights in (("deaf", tiny.core.get_weights()), ("also_deaf", tiny.core.get_weights())):
        other = kmt.load(folder / "good")
        other.core.set_weights([np.zeros_like(values) for values in weights])
        other.like(dataclasses.replace(other.spec, name=name), other.core).save(folder / name)
    return folder


def choose(music, *names, **options):
    return module.choose_base(
        str(music / "sounds"), [music / name for name in names], cache=music / "cache", progress=False, **options
    )


def test_the_best_is_chosen_whatever_the_order(music):
    for names in (("good", "deaf"), ("deaf", "good")):
        choice = choose(music, *names)
        assert choice.model == str(music / "good") and choice.metric == "accuracy" and choice.clips == 15
        best, worst = choice.tried
        assert best.behind == 0 and best.score > 0.8 and worst.score < 0.5
        assert worst.behind > 2 * worst.error > 0 and worst.log_likelihood == best.log_likelihood - worst.behind
        assert str(choice).endswith(f"Chosen: {music / 'good'} (the best).")
    assert choose(music, "good", "deaf") == choose(music, "good", "deaf")


def test_the_first_is_kept_where_nothing_is_clearly_better(music):
    assert choose(music, "deaf", "also_deaf").model == str(music / "deaf")
    choice = choose(music, "also_deaf", "deaf")
    assert choice.model == str(music / "also_deaf")


def test_what_is_said_is_what_the_first_stage_does(music):
    data = prepare(str(music / "sounds"))
    settings = kmt.FineTuneSpec(stages="head")
    tuned = kmt.fine_tune(
        kmt.load(music / "good"), str(music / "sounds"), validation=None, settings=settings, cache=music / "cache",
        progress=False,
    )  # fmt: skip
    everything = prepare(str(music / "sounds"), validation=None)
    choice = module.choose_base(everything, [music / "good"], settings=settings, cache=music / "cache", progress=False)
    assert choice.tried[0].score == pytest.approx(tuned.report.accuracy.value) and choice.clips == 18
    assert len(data.train) == 15


def test_only_what_is_here_is_tried_and_many_clips_are_sampled(music, monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_MUSICTAG_CACHE", str(tmp_path))
    monkeypatch.delenv("KERAS_MUSICTAG_MIRROR", raising=False)
    monkeypatch.setattr(module, "_MAX_CLIPS", 12)
    choice = module.choose_base(
        str(music / "sounds"), ["musicnn_mtt", music / "good"], cache=music / "cache", progress=False
    )
    assert choice.clips == 12 and [row.model for row in choice.tried] == [str(music / "good"), "musicnn_mtt"]
    assert choice.tried[1].problem == "not downloaded: keras-musictag download musicnn_mtt"
    assert json.loads(json.dumps(choice.to_dict()))["tried"][1]["score"] is None
    with pytest.raises(FineTuneError, match=r"None of 1 models can be tried.*download vgg_mtt"):
        module.choose_base(str(music / "sounds"), ["vgg_mtt"], cache=music / "cache", progress=False)


def test_command_line(music, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "CANDIDATES", ("tiny", str(music / "deaf")))

    def run(*args):
        return CliRunner().invoke(main, ["finetune", *map(str, args)], catch_exceptions=False)

    sounds, cache = ("--data", music / "sounds"), ("--cache", music / "cache")
    plan = run("--base", "auto", *sounds, *cache, "--dry-run")
    assert plan.exit_code == 0 and "Chosen: tiny (the best)." in plan.stderr and "fine-tune   tiny" in plan.stdout
    result = run("--base", "auto", *sounds, *cache, "--stages", "head", "--json")
    assert result.exit_code == 0 and "folder: tiny-sounds" in result.stderr
    assert json.loads(result.stdout)["folder"] == "tiny-sounds"
    assert kmt.load(tmp_path / "tiny-sounds").spec.trained_on.startswith("tiny (")
    assert "fine-tune   tiny" in run("--base", "tiny", *sounds, "--dry-run").stdout
    both = run("tiny", "--base", "auto", *sounds)
    assert both.exit_code == 2 and "got tiny and --base auto" in both.stderr
    assert "--base auto" in run("--help").output
