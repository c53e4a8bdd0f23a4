"""Tagger: results, windows, saving, errors. Runs on every backend with `tiny`."""

import dataclasses
import io
import json
import threading

import keras
import numpy as np
import pytest
import soundfile
from keras import ops

import keras_musictag as kmt
from keras_musictag.errors import (
    AudioError,
    AudioNotFoundError,
    CacheError,
    CorruptWeightsError,
    SilentAudioError,
    SpecError,
    UnknownModelError,
    UnknownTagError,
    WeightsError,
    WeightsMismatchError,
    WeightsUnavailableError,
)
from keras_musictag.tagging import base_tagger

pytestmark = [pytest.mark.contract, pytest.mark.smoke]


@pytest.fixture
def song():
    """Seven seconds that change: a tone, noise, silence, a tone."""
    rng = np.random.default_rng(1)
    t = np.arange(2 * 16_000) / 16_000
    tone = 0.4 * np.sin(2 * np.pi * 330 * t)
    return np.concatenate([tone, 0.3 * rng.standard_normal(t.size), np.zeros(16_000), tone]).astype("float32")


# === tag ===


def test_tag_is_sorted_and_complete(tiny, sine):
    tags = tiny.tag(sine, sr=16_000)
    assert set(tags) == set(tiny.tags)
    assert list(tags.values()) == sorted(tags.values(), reverse=True)
    assert all(type(p) is float and 0 <= p <= 1 for p in tags.values())
    assert next(iter(tags)) == "tone"


def test_tag_selects(tiny, sine):
    everything = tiny.tag(sine, sr=16_000)
    assert list(tiny.tag(sine, sr=16_000, top=2).items()) == list(everything.items())[:2]
    assert set(tiny.tag(sine, sr=16_000, tags=["noise", "clicks"])) == {"noise", "clicks"}
    assert tiny.tag(sine, sr=16_000, threshold=0.5) == {t: p for t, p in everything.items() if p >= 0.5}
    with pytest.raises(UnknownTagError, match=r"Unknown tag 'tones'\. Did you mean 'tone'\? Known: tone, chord"):
        tiny.tag(sine, sr=16_000, tags=["tones"])
    with pytest.raises(ValueError, match="top must be a whole number of at least 1; got 0"):
        tiny.tag(sine, sr=16_000, top=0)


def test_every_way_in_gives_the_same(tiny, song, tmp_path):
    path = tmp_path / "song.wav"
    soundfile.write(path, song, 16_000, subtype="FLOAT")
    expected = tiny.tag(song, sr=16_000)
    with open(path, "rb") as file:
        for source in (
            path,
            str(path),
            file,
            io.BytesIO(path.read_bytes()),
            (song, 16_000),
            (song.astype("float64"), 16_000),
        ):
            assert tiny.tag(source) == pytest.approx(expected, abs=1e-6)
    stereo = np.stack([song, song])
    assert tiny.tag(stereo, sr=16_000) == pytest.approx(expected, abs=1e-6)
    assert tiny.tag(song, sr=16_000, offset=2.0, duration=2.0) == pytest.approx(
        tiny.tag(song[32_000:64_000], sr=16_000), abs=1e-6
    )


def test_tag_is_the_mean_over_windows(tiny, song):
    spec = tiny.spec
    gram = tiny.taggram(song, sr=16_000, hop_seconds=spec.window_seconds)
    whole = dataclasses.replace(spec, window=dataclasses.replace(spec.window, remainder="drop"))
    mean = kmt.Tagger(whole, core=tiny.core).tag(song, sr=16_000)
    for tag in tiny.tags:
        assert mean[tag] == pytest.approx(float(gram[tag].mean()), abs=1e-5)


def test_model_and_core_agree(tiny, sine):
    window = sine[None, : tiny.spec.window_samples]
    from keras_musictag.models.layers import LogMelSpectrogram

    log_mel = LogMelSpectrogram.from_spec(tiny.spec.audio, tiny.spec.mel)(window)
    assert tuple(log_mel.shape[1:]) == tiny.spec.input_shape
    np.testing.assert_allclose(
        ops.convert_to_numpy(tiny.model(window)), ops.convert_to_numpy(tiny.core(log_mel)), atol=1e-6
    )
    assert isinstance(tiny.model, keras.Model)
    assert [v.path for v in tiny.model.weights] == [v.path for v in tiny.core.weights]


def test_conv_preprocessing_gives_the_same_tags(tiny, song):
    conv = kmt.load("tiny", impl="conv")
    assert conv.tag(song, sr=16_000) == pytest.approx(tiny.tag(song, sr=16_000), abs=1e-3)


# === tag_many ===


def test_one_bad_file_never_ends_a_batch(tiny, song, tmp_path):
    good, text, missing = tmp_path / "good.wav", tmp_path / "text.mp3", tmp_path / "missing.wav"
    soundfile.write(good, song, 16_000)
    text.write_text("not music\n" * 100)
    results = list(tiny.tag_many([good, text, missing, (np.zeros(16_000), 16_000), good], top=1))
    assert [result.error is None for result in results] == [True, False, False, False, True]
    assert [result.source for result in results[:3]] == [good, text, missing]
    assert isinstance(results[1].error, AudioError) and isinstance(results[2].error, AudioNotFoundError)
    assert isinstance(results[3].error, SilentAudioError)
    assert results[0].tags == results[4].tags and len(results[0].tags) == 1
    with pytest.raises(UnknownTagError):
        list(tiny.tag_many([good], tags=["nothing"]))


@pytest.mark.contract
@pytest.mark.parametrize("workers", [1, 3])
def test_tag_many_in_threads_is_tag_in_turn(tiny, workers):
    rng = np.random.default_rng(0)
    sounds = [(rng.uniform(-1, 1, 16_000 + 500 * number), 16_000) for number in range(8)]
    found = [result.tags for result in tiny.tag_many(sounds, workers=workers)]
    assert found == [tiny.tag(*sound) for sound in sounds]


def test_tag_many_takes_no_more_than_it_needs(tiny):
    taken = []

    def sounds():
        for number in range(50):
            taken.append(number)
            yield (np.full(16_000, 0.1), 16_000)

    results = tiny.tag_many(sounds(), workers=2)
    assert not taken and next(results).tags
    results.close()
    assert len(taken) <= 3
    with pytest.raises(ValueError, match="workers must be a whole number of at least 1, or None; got 0"):
        tiny.tag_many([], workers=0)


# === taggram ===


def test_taggram(tiny, song):
    gram = tiny.taggram(song, sr=16_000, hop_seconds=0.5)
    assert gram.probabilities.shape == (len(gram), 5) and gram.times.shape == (len(gram),)
    np.testing.assert_allclose(np.diff(gram.times), gram.hop_seconds)
    assert gram.times[0] == pytest.approx(tiny.spec.window_seconds / 2)
    assert gram.starts[-1] + gram.window_seconds <= 7 + 0.1
    middle_of_noise = int(np.argmin(abs(gram.times - 3)))
    assert gram["noise"][middle_of_noise] > 0.5 > gram["noise"][0]
    assert json.loads(json.dumps(gram.to_dict()))["tags"] == list(tiny.tags)
    later = tiny.taggram(song, sr=16_000, hop_seconds=0.5, offset=2.0)
    assert later.starts[0] == 2.0
    with pytest.raises(UnknownTagError, match="Unknown tag 'guitar'"):
        gram["guitar"]
    with pytest.raises(ValueError, match="hop_seconds must be positive"):
        tiny.taggram(song, sr=16_000, hop_seconds=0)
    with pytest.raises(ValueError, match="window_seconds must be positive"):
        tiny.taggram(song, sr=16_000, window_seconds=-1)


def test_rows_of_a_taggram_hear_the_seconds_that_are_asked_for(tiny, song):
    gram = tiny.taggram(song, sr=16_000, hop_seconds=0.25, window_seconds=0.5)
    assert gram.window_seconds == pytest.approx(0.5, abs=0.05)
    y = song[round(gram.starts[9] * 16_000) :][: round(gram.window_seconds * 16_000)]
    alone = tiny.tag(y, sr=16_000)  # a short sound fills the window in the same way; only its edges are padded
    np.testing.assert_allclose(gram.probabilities[9], [alone[tag] for tag in tiny.tags], atol=0.15)
    whole = tiny.taggram(song, sr=16_000, hop_seconds=0.25)
    longer = tiny.taggram(song, sr=16_000, hop_seconds=0.25, window_seconds=100)
    assert longer.window_seconds == whole.window_seconds == tiny.spec.window_seconds
    np.testing.assert_array_equal(longer.probabilities, whole.probabilities)


def test_taggram_plot(tiny, song, tmp_path):
    pytest.importorskip("matplotlib")
    gram = tiny.taggram(song, sr=16_000, hop_seconds=0.5)
    ax = gram.plot(top=3)
    assert [label.get_text() for label in ax.get_yticklabels()] == sorted(gram.tags, key=lambda tag: -gram[tag].mean())[
        :3
    ]
    left, right = ax.get_xlim()
    assert left < gram.times[0] < gram.times[-1] < right
    from keras_musictag.plots import save_figure

    save_figure(ax, tmp_path / "gram.png")
    assert (tmp_path / "gram.png").read_bytes().startswith(b"\x89PNG")


def test_plot_without_matplotlib_names_the_extra(tiny, sine, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'keras_musictag\[plot\]'"):
        tiny.taggram(sine, sr=16_000).plot()


# === embed ===


def test_embedding_is_what_the_head_sees(tiny, song):
    window = song[: tiny.spec.window_samples]
    features = tiny.embed(window[: 62 * 256], sr=16_000)
    assert features.shape == (16,) and features.dtype == "float32"
    kernel, bias = (ops.convert_to_numpy(v) for v in tiny.core.get_layer("head").weights)
    probabilities = 1 / (1 + np.exp(-(features @ kernel + bias)))
    tags = tiny.tag(window[: 62 * 256], sr=16_000)
    assert [tags[tag] for tag in tiny.tags] == pytest.approx(probabilities.tolist(), abs=1e-5)


# === save and load ===


def test_save_and_load(tiny, song, tmp_path):
    folder = tiny.save(tmp_path / "mine")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "spec.json", "weights.safetensors"]
    again = kmt.load(folder)
    assert again.tag(song, sr=16_000) == tiny.tag(song, sr=16_000)
    assert again.spec.tags == tiny.spec.tags and again.spec.weights.sha256 != ""
    assert kmt.load(str(folder)).tags == tiny.tags
    with pytest.raises(CacheError, match=r"mine already exists\. Pass overwrite=True"):
        tiny.save(folder)
    tiny.save(folder, overwrite=True)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.doc").write_text("mine")
    with pytest.raises(CacheError, match=r"other already exists\. Choose another folder"):
        tiny.save(other, overwrite=True)
    assert (other / "thesis.doc").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == ["mine", "other"]


def test_a_failed_save_leaves_nothing(tiny, tmp_path, monkeypatch):
    from keras_musictag.models import tagger_folder as module

    def full(path, content):
        raise CacheError(f"{path} cannot be written: no space")

    monkeypatch.setattr(module, "write_atomically", full)
    with pytest.raises(CacheError, match="no space"):
        tiny.save(tmp_path / "mine")
    assert [path for path in tmp_path.iterdir() if path.name != "cache"] == []


def test_damaged_folders(tiny, tmp_path):
    folder = tiny.save(tmp_path / "mine")
    weights = folder / "weights.safetensors"
    original = weights.read_bytes()
    weights.write_bytes(original[:-4] + b"\0\0\0\0")
    with pytest.raises(CorruptWeightsError, match="is not the file the spec pins: its sha256 is"):
        kmt.load(folder)
    weights.unlink()
    with pytest.raises(WeightsError, match=r"weights\.safetensors is missing"):
        kmt.load(folder)
    weights.write_bytes(original)
    spec = json.loads((folder / "spec.json").read_text())
    spec["tags"] = [*spec["tags"], "one more"]
    (folder / "spec.json").write_text(json.dumps(spec))
    with pytest.raises(
        WeightsMismatchError, match=r"of another shape: head/bias: \(5,\) in the file, \(6,\) in the model"
    ):
        kmt.load(folder)
    spec["architecture"] = "no_such_thing"
    (folder / "spec.json").write_text(json.dumps(spec))
    with pytest.raises(UnknownModelError, match="Unknown architecture 'no_such_thing'"):
        kmt.load(folder)


# === load ===


def test_load_says_what_is_wrong(tmp_path):
    with pytest.raises(UnknownModelError, match="Did you mean 'tiny'"):
        kmt.load("tinny")
    with pytest.raises(UnknownModelError, match="There is no folder"):
        kmt.load(tmp_path / "nothing")
    with pytest.raises(SpecError, match=r"has no spec\.json"):
        kmt.load(tmp_path)
    with pytest.raises(SpecError, match="A Hub address must be hf://org/repo"):
        kmt.load("hf://nonsense")
    with pytest.raises(ValueError, match="weights must be 'pretrained' or None; got 'imagenet'"):
        kmt.load("tiny", weights="imagenet")


def test_no_random_weights_behind_the_callers_back():
    without = [name for name in kmt.list_models() if kmt.model_info(name).weights is None]
    for name in without:
        with pytest.raises(WeightsUnavailableError, match=rf"There are no weights for '{name}' yet.*weights=None"):
            kmt.load(name)
    assert "random weights" in repr(kmt.load("tiny", weights=None))
    assert "pretrained" in repr(kmt.load("tiny"))


def test_repr_is_one_readable_line(tiny):
    assert repr(tiny) == "<Tagger tiny: 5 tags, 3,829 parameters, 32x63 log-mel at 16000 Hz, 1.0 s windows, pretrained>"


def test_a_network_that_does_not_fit_the_spec_is_refused():
    spec = kmt.model_info("tiny")
    with pytest.raises(SpecError, match=r"maps \(None, 32, 63\) to \(None, 7\); its spec says"):
        kmt.Tagger(spec, core=kmt.models.tiny(num_tags=7))


# === Compiled once ===


def test_one_trace_however_many_windows(tiny, sine):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("counts TensorFlow's traces")
    tagger = kmt.load("tiny")
    calls = 0
    head = tagger.core.get_layer("head")
    inner = head.call

    def counted(*args, **kwargs):
        nonlocal calls
        calls += 1
        return inner(*args, **kwargs)

    head.call = counted
    tagger.tag(sine[:16_000], sr=16_000)
    traced = calls
    for seconds in (2, 3, 3, 1):
        tagger.tag(sine[: seconds * 16_000], sr=16_000)
    assert calls == traced > 0


def test_a_long_track_is_tagged_in_batches(tiny, song, monkeypatch):
    from keras_musictag.tagging import base_tagger as module

    expected = tiny.tag(song, sr=16_000)
    monkeypatch.setattr(module, "BATCH_SECONDS", 2.0)
    assert tiny.tag(song, sr=16_000) == pytest.approx(expected, abs=1e-6)


def test_a_long_track_is_decoded_while_its_batches_are_predicted(tiny, song, monkeypatch):
    """Its tags are the mean over all windows, and an error of either side ends it."""
    monkeypatch.setattr(base_tagger, "BATCH_SECONDS", tiny.spec.window_seconds)
    batches = list(tiny._windows(song, 16_000, 0.0, None))
    assert len(batches) > 4
    threads = []

    class Recorder:
        def __init__(self, last):
            self.last = last

        def predict(self, samples):
            threads.append(threading.current_thread())
            if len(threads) > self.last:
                raise RuntimeError("out of memory")
            return tiny.predict_waveforms(samples)

    mean = tiny._mean(Recorder(99), iter(batches))
    rows = np.concatenate([tiny.predict_waveforms(batch.samples) for batch in batches])
    np.testing.assert_allclose(mean, rows.mean(axis=0), atol=1e-6)
    assert threads[:2] == [threading.main_thread()] * 2
    assert threading.main_thread() not in threads[2:]
    threads.clear()
    with pytest.raises(RuntimeError, match="out of memory"):
        tiny._mean(Recorder(3), iter(batches))

    def broken():
        yield from batches[:4]
        raise SilentAudioError("silent")

    with pytest.raises(SilentAudioError):
        tiny._mean(Recorder(99), broken())


# === Found by review ===


def test_random_weights_are_saved_as_such(tmp_path):
    folder = kmt.load("tiny", weights=None).save(tmp_path / "random")
    spec = kmt.load(folder).spec
    assert "random weights" in spec.trained_on and spec.metrics == () and spec.license == ""
    assert "random weights" in (folder / "README.md").read_text()
    kept = kmt.load("tiny").save(tmp_path / "kept")
    assert kmt.load(kept).spec.metrics == kmt.model_info("tiny").metrics


def test_copies_run_their_own_weights(tiny, sine):
    import copy

    tiny.tag(sine, sr=16_000)
    double = copy.deepcopy(tiny)
    head = double.core.get_layer("head")
    head.kernel.assign(np.zeros(head.kernel.shape, "float32"))
    head.bias.assign(np.zeros(head.bias.shape, "float32"))
    assert set(double.tag(sine, sr=16_000).values()) == {0.5}
    assert tiny.tag(sine, sr=16_000)["tone"] > 0.8


def test_one_sound_is_not_several(tiny, sine):
    for one in ("song.mp3", sine):
        with pytest.raises(TypeError, match=r"tag_many\(\) takes several sounds; got one"):
            tiny.tag_many(one)


def test_overwriting_keeps_other_files(tiny, tmp_path):
    folder = tiny.save(tmp_path / "mine")
    (folder / "notes.txt").write_text("mine")
    tiny.save(folder, overwrite=True)
    assert (folder / "notes.txt").read_text() == "mine"
    assert kmt.load(folder).tags == tiny.tags


def test_a_registered_name_means_the_same_everywhere(tiny, tmp_path, monkeypatch):
    other = tiny.spec.retrained(tags=("a", "b", "c", "d", "e"))
    kmt.Tagger(other, core=tiny.core).save(tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    assert kmt.load("tiny").tags == tiny.tags
    assert kmt.load("./tiny").tags == other.tags


def test_a_config_that_the_builder_does_not_take(tiny):
    wrong = dataclasses.replace(tiny.spec, config={"colour": 1})
    with pytest.raises(SpecError, match=r"'tiny' cannot be built with config=\{'colour': 1\}"):
        kmt.Tagger(wrong, pretrained=False)


def test_a_plot_shows_only_what_was_heard(tiny, sine):
    pytest.importorskip("matplotlib")
    left, right = tiny.taggram(sine, sr=16_000, hop_seconds=2.5).plot().get_xlim()
    assert left >= 0 and right <= 3.01
