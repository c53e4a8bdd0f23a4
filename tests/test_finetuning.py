"""Fine-tuning, from labelled sounds to a tagger of one's own: what comes out, what it says of itself, what stops it."""

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
import soundfile
from audio_files import encode
from hub_upload_server import hub_for_the_client
from keras import ops
from own_tags import RATE, TAGS, own_tags
from two_tags import two_tags

import keras_musictag as kmt
from keras_musictag.audio import reading as audio
from keras_musictag.datasets import Manifest, Row
from keras_musictag.datasets.batches import WindowBatches
from keras_musictag.errors import CacheError, SpecError
from keras_musictag.models import cards
from keras_musictag.models.layer_statistics import STANDARDISE
from keras_musictag.training.finetuning import FineTuneError, FineTuneSpec, fine_tune, plan

QUICK = FineTuneSpec(epochs=2, batch_size=8)
HEAD = FineTuneSpec(stages="head")


def outputs(tagger, count=4):
    """What a tagger says of some noises."""
    x = np.random.default_rng(0).normal(2, 1, (count, *tagger.spec.input_shape)).astype("float32")
    return ops.convert_to_numpy(tagger.core(x, training=False))


def weights(tagger):
    return np.concatenate([values.ravel() for values in tagger.core.get_weights()])


def split(manifest, *splits):
    """The rows with these splits, a group at a time."""
    groups = list(dict.fromkeys(row.group for row in manifest))
    of = {group: splits[number % len(splits)] for number, group in enumerate(groups)}
    return Manifest(tuple(dataclasses.replace(row, split=of[row.group]) for row in manifest), manifest.tags)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the sounds, the caches and the runs of this module are."""
    return tmp_path_factory.mktemp("finetuning")


@pytest.fixture(scope="module")
def three(folder):
    """24 sounds, each of one of three kinds, by four artists."""
    return own_tags(folder / "three")


@pytest.fixture(scope="module")
def two(folder):
    """24 sounds that are tonal, noisy or both, by twelve artists."""
    return two_tags(folder / "two", 24)


@pytest.fixture
def tune(folder):
    """`fine_tune` with a cache that all tests share."""

    def call(tagger, data, *args, settings=QUICK, **options):
        return fine_tune(tagger, data, *args, cache=folder / "cache", settings=settings, progress=False, **options)

    return call


@pytest.fixture(scope="module")
def chosen(tiny, three, folder):
    """A finished run on clips with one tag each, its folder, and what the base was before."""
    before = weights(tiny), outputs(tiny), tiny.spec
    result = fine_tune(
        tiny, three, folder=folder / "chosen", cache=folder / "cache", settings=QUICK, progress=False
    )  # fmt: skip
    return result, before


# === What comes out ===


@pytest.mark.contract
def test_one_tag_per_clip(chosen, tiny):
    result, before = chosen
    tagger, report = result.tagger, result.report
    assert result.finished and not result.problems and tagger.tags == TAGS and tagger.report is report
    np.testing.assert_allclose(outputs(tagger).sum(axis=1), 1, atol=1e-5)
    assert report.accuracy.value > 0.8 and report.confusion.sum() == report.n_clips == len(result.data.validation)
    assert report.kept in ("head", "full") and set(report.log_likelihood) == {"head", "full"}
    known, said, spec = before  # the base is as it was
    np.testing.assert_array_equal(weights(tiny), known)
    np.testing.assert_array_equal(outputs(tiny), said)
    assert tiny.spec == spec and tiny.report is None
    clip = result.data.validation[0]
    assert max(tagger.tag(clip.path).items(), key=lambda pair: pair[1])[0] == clip.tags[0]


@pytest.mark.contract
def test_any_number_of_tags_per_clip(tiny, two, tune, tmp_path):
    result = tune(tiny, two, folder=tmp_path / "mine")
    report = result.report
    assert result.tagger.tags == two.tags and report.accuracy is None and report.confusion is None
    assert report.evaluation.roc_auc.value > 0.9
    assert not {row.group for row in result.data.train} & {row.group for row in result.data.validation}
    both = two[2]
    assert both.tags == two.tags and min(result.tagger.tag(both.path).values()) > 0.4
    assert kmt.load(tmp_path / "mine").tag(both.path) == result.tagger.tag(both.path)


def test_without_a_folder_it_can_be_saved_later(chosen, tiny, three, tune, tmp_path):
    result = tune(tiny, three)
    assert result.folder is None and not list(tmp_path.glob("fine-tuning/*")), "the run cleans up"
    result.tagger.save(tmp_path / "saved")
    loaded = kmt.load(tmp_path / "saved")
    np.testing.assert_allclose(outputs(loaded), outputs(result.tagger), atol=1e-6)
    # The same data and settings, the same tagger. Measured: bit for bit; threads may change the order of additions.
    np.testing.assert_allclose(weights(result.tagger), weights(chosen[0].tagger), atol=1e-4)
    assert loaded.spec.tags == TAGS and loaded.report is None


def test_the_folder(chosen, folder):
    files = sorted(path.name for path in (folder / "chosen").iterdir())
    assert files == ["README.md", "report.json", "report.png", "run", "spec.json", "weights.safetensors"]
    report = json.loads((folder / "chosen" / "report.json").read_text())
    assert report == chosen[0].report.to_dict() and report["tags"] == list(TAGS) and len(report["confusion"]) == 3
    assert (folder / "chosen" / "report.png").read_bytes().startswith(b"\x89PNG")
    np.testing.assert_allclose(outputs(kmt.load(folder / "chosen")), outputs(chosen[0].tagger), atol=1e-6)


def test_the_spec_says_how_it_was_made(chosen, tiny):
    result, _ = chosen
    spec = result.tagger.spec
    assert spec.name == "chosen" and spec.architecture == "tiny" and spec.config["classifier_activation"] == "softmax"
    for said in ("tiny (sha256 ", tiny.weights_sha256, "manifest", "seed 0", "epochs 2", "batch_size 8"):
        assert said in spec.trained_on, said
    own, *inherited = spec.training_data
    assert own.role == "labelled" and result.data.train.digest().split(", ")[1] in own.note
    assert f"{len(result.data.train)} train, {len(result.data.validation)} validation" in own.note
    assert [each.name for each in inherited] == [each.name for each in tiny.spec.training_data]
    assert all("of the base tiny" in each.note for each in inherited)
    (metric,) = spec.metrics
    assert metric["accuracy"] == round(result.report.accuracy.value, 4) and metric["n"] == result.report.n_clips
    assert metric["dataset"] == "manifest" and metric["split"].startswith("validation")
    card = cards.model_card(spec, "ann/chosen")
    assert "accuracy" in card and "tiny fine-tuned on manifest" in card and "beep" in card
    assert kmt.ModelSpec.from_dict(json.loads(spec.to_json())) == dataclasses.replace(spec, root=None)


# The Hub's client passes files to its HTTP library in a way that this calls old.
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_it_is_uploaded_and_loaded_again(chosen, sine, tmp_path, monkeypatch):
    for _ in hub_for_the_client(tmp_path, monkeypatch):
        loaded = kmt.load(chosen[0].tagger.push_to_hub("ann/chosen"))
        assert loaded.tags == TAGS and loaded.tag(sine, sr=RATE) == chosen[0].tagger.tag(sine, sr=RATE)


def test_a_fine_tuned_tagger_is_fine_tuned(chosen, two, tune):
    result = tune(chosen[0].tagger, two, settings=HEAD)
    spec = result.tagger.spec
    assert spec.tags == two.tags and spec.config["classifier_activation"] == "sigmoid", "it chose, this one judges"
    assert spec.config["taps"] == chosen[0].tagger.spec.config["taps"]
    assert [each.name for each in spec.training_data][:2] == ["manifest", "manifest"]
    assert result.report.evaluation.roc_auc.value > 0.9


def test_a_method_of_the_tagger(tiny, three, folder):
    tagger = tiny.fine_tune(three, ["tick", "beep"], settings=HEAD, cache=folder / "cache", progress=False)
    assert tagger.tags == ("tick", "beep") and tagger.report.kept == "head" and tagger is not tiny


def test_musicnet_crnn(three, tune, folder):
    base = kmt.load("musicnet_crnn")
    some = Manifest(tuple(row for row in three if row.path.stem in "0246"), TAGS)
    result = tune(base, some, settings=HEAD, validation=None)
    assert result.tagger.spec.config["taps"] == ["pool2", "pool3", "pool4", "gru1"]
    assert result.report.n_clips == 12 and result.report.accuracy.value > 0.6, "of clips that were held out"
    said = result.tagger.tag(some[0].path)
    assert max(said, key=said.get) == "beep"


# === Stages ===


@pytest.mark.smoke
def test_the_head_alone(tiny, three, tune):
    result = tune(tiny, three, settings=HEAD)
    assert result.report.kept == "head" and list(result.report.log_likelihood) == ["head"]
    for name in ("conv1", "bn2", "gru1"):
        for ours, theirs in zip(
            result.tagger.core.get_layer(name).weights, tiny.core.get_layer(name).weights, strict=True
        ):
            np.testing.assert_array_equal(ops.convert_to_numpy(ours), ops.convert_to_numpy(theirs))
    assert "head" in result.tagger.spec.trained_on


def test_the_whole_network_but_its_norms(tiny, three, tune):
    result = tune(tiny, three, validation=None)
    assert result.report.kept == "full", "without clips to compare on, it is"
    layer = {layer.name: layer.get_weights() for layer in result.tagger.core.layers}
    for name in ("conv1", "conv2", "gru1"):
        assert not np.array_equal(layer[name][0], tiny.core.get_layer(name).get_weights()[0]), name
    for name in ("bn1", "bn2"):
        for ours, theirs in zip(layer[name], tiny.core.get_layer(name).get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert STANDARDISE in layer


def test_what_does_worse_is_not_kept(tiny, three, tune, monkeypatch):
    def spoil(tagger, *args, **options):
        state = trained(tagger, *args, **options)
        tagger.core.get_layer("head").kernel.assign(-20 * tagger.core.get_layer("head").kernel)
        return state

    from keras_musictag.training.finetuning import fine_tune_run as run

    trained = run.train_all
    head = tune(tiny, three, settings=dataclasses.replace(HEAD, epochs=2, batch_size=8))
    monkeypatch.setattr(run, "train_all", spoil)
    result = tune(tiny, three)
    assert result.report.kept == "head" and result.report.log_likelihood["full"] < result.report.log_likelihood["head"]
    np.testing.assert_allclose(outputs(result.tagger), outputs(head.tagger), atol=1e-5)


def test_in_the_end_the_clips_held_out_are_learned_from_too(tiny, three, tune):
    result, all_at_once = (tune(tiny, three, validation=share, settings=HEAD) for share in (0.25, None))
    for ours, theirs in zip(
        *(each.tagger.core.get_layer(STANDARDISE).get_weights() for each in (result, all_at_once)), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    given = tune(tiny, split(three, "train", "train", "train", "valid"), settings=HEAD)
    assert "valid" in {row.split for row in given.data.validation}, "but those that are given to validate on are not"
    assert not np.allclose(
        given.tagger.core.get_layer(STANDARDISE).get_weights()[0],
        all_at_once.tagger.core.get_layer(STANDARDISE).get_weights()[0],
    )


# === What is measured ===


def test_without_validation_the_folds_are_measured(tiny, three, tune):
    result = tune(tiny, three, validation=None, settings=HEAD)
    assert result.report.split == "train, 4-fold, first stage only" and result.report.n_clips == 24
    assert result.report.accuracy.value > 0.6 and result.report.log_likelihood == {}


def test_clips_to_validate_on(tiny, three, tune, tmp_path):
    other = own_tags(tmp_path / "others", per_tag=4, seed=1)
    result = tune(tiny, three, validation=other, settings=HEAD)
    assert len(result.data.train) == 24 and result.report.n_clips == 12
    assert result.report.split.startswith("validation") and "24 train, 12 validation" in str(
        result.tagger.spec.training_data
    )


def test_the_split_test_is_measured(tiny, three, tune, tmp_path):
    result = tune(tiny, split(three, "train", "train", "valid", "test"), folder=tmp_path / "mine", settings=HEAD)
    assert result.report.split == "test" and result.report.n_clips == 6 == len(result.data.test)
    assert kmt.load(tmp_path / "mine").spec.metrics[0]["split"] == "test"
    evaluation = kmt.evaluate(result.tagger, result.data.test, dataset="sounds", n_bootstrap=0)
    assert evaluation.roc_auc.value == pytest.approx(result.report.evaluation.roc_auc.value, abs=1e-3)


def test_the_report_names_what_went_wrong(tiny, three, tune):
    """Two sounds with the wrong label, among those that are measured on."""
    rows = [*split(three, "train", "train", "train", "test")]
    measured = [number for number, row in enumerate(rows) if row.split == "test"]
    for number in measured[:2]:
        rows[number] = dataclasses.replace(rows[number], tags=("tick",))
    report = tune(tiny, Manifest(tuple(rows), TAGS), settings=HEAD).report
    wrong = {(mistake.file, mistake.tag, mistake.predicted) for mistake in report.mistakes}
    assert {(f"beep/{rows[number].path.name}", "tick", "beep") for number in measured[:2]} <= wrong
    assert report.confusion[2, 0] == 2 and report.accuracy.value == pytest.approx(4 / 6, abs=0.2)
    told = str(report)
    assert f"{rows[measured[0]].path.name}: tick 0." in told and ", but beep " in told
    assert "true \\ predicted" in told and "accuracy 0." in told and told.splitlines()[-1].startswith("kept: head")


# === Folders and problems ===


def test_a_folder_with_something_else(chosen, tiny, three, tune, folder, tmp_path):
    with pytest.raises(FineTuneError, match=r"holds a run with seed 0 instead of 1\. Choose"):
        tune(tiny, three, folder=folder / "chosen", settings=dataclasses.replace(QUICK, seed=1))
    with pytest.raises(FineTuneError, match=r"holds a run with other data, another kind of labels"):
        tune(tiny, three, ["beep", "tick"], folder=folder / "chosen")
    with pytest.raises(FineTuneError, match=r"holds a run with another kind of labels"):
        tune(tiny, three, folder=folder / "chosen", single_label=False)
    tiny.save(tmp_path / "tagger")
    with pytest.raises(
        CacheError, match=r"tagger holds spec\.json, .*not made by a run in this folder .*Choose another folder"
    ):
        tune(tiny, three, folder=tmp_path / "tagger")
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match=r"cannot be made: .*Choose another folder"):
        tune(tiny, three, folder=tmp_path / "file")


def test_another_base_of_the_same_name_is_another_run(tiny, three, tune, tmp_path):
    tune(tiny, three, folder=tmp_path / "mine", settings=HEAD)
    other = kmt.Tagger(tiny.spec, pretrained=False)
    with pytest.raises(FineTuneError, match="holds a run with another base"):
        tune(other, three, folder=tmp_path / "mine", settings=HEAD)


def test_a_broken_sound_is_left_out(tiny, three, tune, tmp_path, caplog):
    """Its header is fine, so it takes decoding to find out."""
    whole = encode(0.1 * np.random.default_rng(0).standard_normal((1, RATE)), RATE, "WAV")
    broken = tmp_path / "broken.wav"
    broken.write_bytes(whole[: len(whole) // 3])
    silent = tmp_path / "fine.wav"
    soundfile.write(silent, np.random.default_rng(0).normal(0, 0.1, RATE), RATE)
    more = (Row(path=broken, tags=("hiss",)), Row(path=silent, tags=("hiss",)), Row(path=tmp_path / "x", tags=TAGS[:1]))
    data = Manifest((*three, *more), TAGS)
    result = tune(tiny, data, folder=tmp_path / "mine", settings=HEAD)
    problems = (tmp_path / "mine" / "problems.txt").read_text().splitlines()
    assert len(problems) == 2 and "x: there is no such file" in problems[0]
    assert "broken.wav' is truncated or damaged" in problems[1]
    assert tuple(problems) == result.problems
    assert "1 of 26 clips cannot be used, the first one: " in caplog.text and "They are left out." in caplog.text
    paths = {row.path for part in result.data.parts.values() for row in part}
    assert silent in paths and broken not in paths
    again = tune(tiny, data, folder=tmp_path / "mine", settings=HEAD)
    np.testing.assert_array_equal(weights(again.tagger), weights(result.tagger))
    with pytest.raises(FineTuneError, match=r"1 of 26 clips cannot be used, the first one: .*broken\.wav"):
        tune(tiny, Manifest(data.rows[:-1], TAGS), settings=HEAD, strict=True)


def test_an_architecture_that_cannot_choose(three, tune):
    spec = dataclasses.replace(kmt.model_info("tiny"), name="sigmoids", architecture="sigmoids")

    @kmt.register_model
    def sigmoids(num_tags=5, *, input_shape=(32, 63), name="sigmoids"):
        return kmt.models.tiny(num_tags, input_shape=input_shape, name=name)

    base = kmt.Tagger(spec, pretrained=False)
    with pytest.raises(SpecError, match=r"'sigmoids' has no argument classifier_activation.* Pass single_label=False"):
        tune(base, three, settings=HEAD)
    assert tune(base, three, settings=HEAD, single_label=False).tagger.spec.architecture == "sigmoids"


@pytest.mark.parametrize(
    "at", ["log-mels", "embeddings", "checkpoint.safetensors", "report.json", "weights.safetensors"]
)
def test_a_full_disk(tiny, three, tmp_path, monkeypatch, at):
    """Whatever was being written: no tagger that is half there, and the same call ends it once there is space."""
    replace = type(tmp_path).replace

    def full(self, target):
        if at in str(target):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(self, target)

    settings = QUICK if at == "checkpoint.safetensors" else HEAD
    options = {"cache": tmp_path / "log-mels", "settings": settings, "progress": False}
    monkeypatch.setattr(type(tmp_path), "replace", full)
    with pytest.raises(CacheError, match="No space left on device"):
        fine_tune(tiny, three, folder=tmp_path / "mine", **options)
    assert not list(tmp_path.rglob("*.part")) and not (tmp_path / "mine" / "spec.json").exists()
    monkeypatch.undo()
    assert fine_tune(tiny, three, folder=tmp_path / "mine", **options).finished


# === Again, and going on ===


@pytest.fixture
def decoded(monkeypatch):
    """The files that are decoded."""
    files = []
    stream = audio.stream

    def counted(source, *args, **options):
        files.append(source)
        return stream(source, *args, **options)

    monkeypatch.setattr(audio, "stream", counted)
    return files


def test_sounds_are_decoded_once(tiny, three, tmp_path, decoded):
    options = {"cache": tmp_path / "cache", "progress": False}
    fine_tune(tiny, three, settings=HEAD, **options)
    assert len(decoded) == len(three)
    decoded.clear()
    fine_tune(tiny, three, settings=dataclasses.replace(QUICK, epochs=1, seed=1), validation=0.3, **options)
    assert not decoded, "other settings, the same sounds"


def test_a_finished_run_is_only_told_again(chosen, tiny, three, tune, folder, monkeypatch):
    def never(self, index):
        raise AssertionError("nothing is to be trained")

    monkeypatch.setattr(WindowBatches, "__getitem__", never)
    again = tune(tiny, three, folder=folder / "chosen")
    assert again.finished and again.report.kept == chosen[0].report.kept
    np.testing.assert_array_equal(weights(again.tagger), weights(chosen[0].tagger))


LONG = FineTuneSpec(epochs=6, batch_size=4, patience=6)  # 30 steps


def test_kill_9_in_the_second_stage(tiny, three, tune, folder, tmp_path):
    """A real process, really killed, in the middle of a step."""
    code = """
import sys, time
sys.path.insert(0, sys.argv[2])
from test_finetuning import *
original = WindowBatches.__getitem__
def slow(self, index):
    time.sleep(0.05)
    print(index, flush=True)
    return original(self, index)
WindowBatches.__getitem__ = slow
fine_tune(kmt.load("tiny"), sys.argv[3], folder=sys.argv[1], cache=sys.argv[4], settings=LONG, progress=False)
"""
    table = tmp_path / "three.csv"
    three.to_csv(table)
    arguments = [str(tmp_path / "killed"), os.path.dirname(__file__), str(table), str(folder / "cache")]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    for line in process.stdout:
        if line.strip() == "17":  # read ahead of the steps by at most four: the second pass is done, the fourth is not
            process.send_signal(signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    checkpoint = tmp_path / "killed" / "run" / "checkpoint.safetensors"
    assert checkpoint.exists() and not (tmp_path / "killed" / "spec.json").exists()
    whole = tune(tiny, table, folder=tmp_path / "whole", settings=LONG)
    resumed = tune(tiny, table, folder=tmp_path / "killed", settings=LONG)
    np.testing.assert_allclose(weights(resumed.tagger), weights(whole.tagger), atol=1e-4)
    assert resumed.report.log_likelihood == pytest.approx(whole.report.log_likelihood, abs=1e-4)


@pytest.mark.parametrize(("validation", "turn"), [(0.25, 1), (0.25, 2), (None, 1)])
def test_ctrl_c_keeps_the_best_so_far(tiny, three, tune, tmp_path, ctrl_c, monkeypatch, validation, turn):
    """In the second stage, or when it is gone through again with the clips that were held out."""
    get, seen = WindowBatches.__getitem__, []

    def press(self, index):
        if index == (2 if turn == 2 else 6):
            seen.append(index)
            if len(seen) == turn:
                os.kill(os.getpid(), signal.SIGINT)
        return get(self, index)

    options = {"folder": tmp_path / "mine", "settings": QUICK if turn == 2 else LONG, "validation": validation}
    monkeypatch.setattr(WindowBatches, "__getitem__", press)
    stopped = tune(tiny, three, **options)
    assert len(seen) == turn and not stopped.finished and stopped.report.accuracy.value > 0.6
    loaded = kmt.load(tmp_path / "mine")
    np.testing.assert_allclose(outputs(loaded), outputs(stopped.tagger), atol=1e-6)
    monkeypatch.setattr(WindowBatches, "__getitem__", get)
    ended = tune(tiny, three, **options)
    whole = tune(tiny, three, **{**options, "folder": tmp_path / "whole"})
    assert ended.finished and whole.report.kept == "full"
    np.testing.assert_allclose(weights(ended.tagger), weights(whole.tagger), atol=1e-4)


# === What would be done ===


def test_a_plan(tiny, three, tmp_path):
    told = str(plan(tiny, three, settings=FineTuneSpec(epochs=3)))
    for line in ("fine-tune   tiny", "tags        3, one per clip", "at most 3 epochs, about "):
        assert line in told
    assert "then" not in str(plan(tiny, three, settings=HEAD)).splitlines()[-1]
    assert not list(tmp_path.glob("*")), "nothing is written"


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="once is enough")
def test_lazy_names():
    assert kmt.fine_tune is fine_tune and kmt.FineTuneSpec is FineTuneSpec
