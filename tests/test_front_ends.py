"""Front ends of published models: HTK's and Kaldi's mel banks, centring per window, pre-emphasis, other logarithms."""

import dataclasses
import math

import librosa
import numpy as np
import pytest
from keras import ops

from keras_musictag.datasets.augment import from_power, limit_range, to_power
from keras_musictag.errors import InvalidSamplesError, SpecError
from keras_musictag.models.layers import LogMelSpectrogram
from keras_musictag.models.mel import LogMel, mel_filterbank, window_function
from keras_musictag.models.spec import AudioSpec, MelSpec, ModelSpec, WindowSpec
from keras_musictag.models.windows import cut

pytestmark = pytest.mark.contract


def make_spec(sr, samples, policy=None, **mel):
    mel = MelSpec(**{"center": True, "pad_mode": "reflect", **mel})
    window = {"remainder": "drop", **(policy or {})}
    return ModelSpec(
        name="front_end", architecture="tiny", audio=AudioSpec(sr=sr), mel=mel, tags=("a",),
        window=WindowSpec(frames=mel.frames(samples), samples=samples, **window),
    )  # fmt: skip


TORCHAUDIO = make_spec(16_000, 48_000, n_fft=512, hop_length=256, n_mels=96, htk=True, norm=None)
AMPLITUDE = make_spec(
    12_000, 24_000, n_fft=512, hop_length=256, n_mels=96, scaling="amplitude_to_db", amin=1e-5, top_db=80.0
)
KALDI = make_spec(
    32_000, 32_000, n_fft=1024, hop_length=320, win_length=800, periodic=False, preemphasis_coefficient=0.97,
    n_mels=128, fmax=15_000.0, htk=True, norm=None, mel_banks="kaldi", scaling="log", mean=-4.5, std=5.0,
)  # fmt: skip
CONSTANT = make_spec(16_000, 8_000, pad_mode="constant", n_fft=400, hop_length=160, n_mels=40, window="hamming")
SPECS = {"torchaudio": TORCHAUDIO, "amplitude": AMPLITUDE, "kaldi": KALDI, "constant": CONSTANT}


def sounds(spec):
    rng = np.random.default_rng(0)
    t = np.arange(spec.window_samples) / spec.audio.sr
    loud = 0.4 * np.sin(2 * np.pi * 440 * t) + 0.05 * rng.normal(size=t.size)
    return np.stack([loud, 1e-3 * rng.normal(size=t.size)]).astype("float32")


def by_keras(spec, x, **options):
    return ops.convert_to_numpy(LogMelSpectrogram.from_spec(spec.audio, spec.mel, **options)(x))


# === Equal to others ===


@pytest.mark.parametrize("impl", ["fft", "conv"])
def test_torchaudio_numbers(impl):
    """librosa with these options is torchaudio's MelSpectrogram(n_fft=512, f_min=0, n_mels=96), then AmplitudeToDB."""
    x = sounds(TORCHAUDIO)
    mel = librosa.feature.melspectrogram(
        y=x, sr=16_000, n_fft=512, hop_length=256, n_mels=96, htk=True, norm=None, pad_mode="reflect"
    )
    assert mel.shape[1:] == TORCHAUDIO.input_shape == (96, 188)
    expected = librosa.power_to_db(mel, top_db=None)
    # Asked for: 1e-4 dB. Measured on the three backends: 2e-5 by FFT, 3e-4 as a float32 convolution.
    atol = {"fft": 1e-4, "conv": 1e-3}[impl]
    np.testing.assert_allclose(by_keras(TORCHAUDIO, x, impl=impl), expected, atol=atol, rtol=0)


def test_amplitude_to_db_per_clip():
    x = sounds(AMPLITUDE)
    mel = librosa.feature.melspectrogram(y=x, sr=12_000, n_fft=512, hop_length=256, n_mels=96, pad_mode="reflect")
    expected = [librosa.power_to_db(clip**2, ref=1.0, amin=1e-10, top_db=80.0) for clip in mel]
    np.testing.assert_allclose(by_keras(AMPLITUDE, x), expected, atol=1e-4, rtol=0)  # measured 2.3e-5
    np.testing.assert_allclose(librosa.amplitude_to_db(mel[0], top_db=80.0), expected[0], atol=1e-4)
    assert expected[0].max() - expected[0].min() == pytest.approx(80.0, abs=1e-3)


def test_kaldi_front_end_as_its_definition_says():
    """Bin by bin and frame by frame, in float64."""
    x = sounds(KALDI)[0].astype("float64")
    emphasised = np.array([x[t] - 0.97 * x[t - 1] for t in range(1, len(x))])
    padded = np.pad(emphasised, 512, mode="reflect")
    n = np.arange(800)
    taper = np.pad(0.5 - 0.5 * np.cos(2 * np.pi * n / 799), 112)

    def mel(hz):
        return 1127.0 * math.log(1.0 + hz / 700.0)

    edges = np.linspace(0.0, mel(15_000.0), 130)
    for frame in (0, 1, 50, 99):
        power = np.abs(np.fft.rfft(padded[320 * frame :][:1024] * taper)) ** 2
        energies = np.zeros(128)
        for band in range(128):
            left, peak, right = edges[band : band + 3]
            for k in range(512):
                m = mel(k * 32_000 / 1024)
                if left < m < right:
                    energies[band] += power[k] * (
                        (m - left) / (peak - left) if m <= peak else (right - m) / (right - peak)
                    )
        expected = (np.log(energies + 1e-5) + 4.5) / 5.0
        np.testing.assert_allclose(by_keras(KALDI, x[None])[0, :, frame], expected, atol=2e-5)  # measured 4e-6
    assert KALDI.input_shape == (128, 100)


@pytest.mark.parametrize("name", SPECS)
def test_numpy_and_both_implementations_agree(name):
    spec = SPECS[name]
    x = sounds(spec)
    expected = by_keras(spec, x)
    np.testing.assert_allclose(LogMel(spec)(x), expected, atol=1e-4)  # measured 2.3e-5
    np.testing.assert_allclose(by_keras(spec, x, impl="conv"), expected, atol=1e-3)  # measured 3.3e-4
    layer = LogMelSpectrogram.from_spec(spec.audio, spec.mel)
    assert layer.compute_output_shape(x.shape) == expected.shape
    again = LogMelSpectrogram.from_config(layer.get_config())
    np.testing.assert_array_equal(ops.convert_to_numpy(again(x)), expected)


@pytest.mark.parametrize("name", SPECS)
def test_onnx_hears_what_keras_does(name):
    onnx = pytest.importorskip("keras_musictag.tagging.exporting.onnx")
    pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    import keras

    from keras_musictag.tagging.runtimes import OnnxRuntime

    spec = SPECS[name]
    model = keras.Sequential([keras.Input(spec.input_shape), keras.layers.Flatten()])
    written = onnx.build(model, spec, "float32", "waveform", None)
    found = OnnxRuntime([written.SerializeToString()]).run(sounds(spec))["probabilities"]
    away = np.abs(found.reshape(-1, *spec.input_shape) - by_keras(spec, sounds(spec)))
    assert away.max() < 0.1 and away.mean() < 1e-3  # as of the other front ends: the STFT is float32


def test_scalings_can_be_undone():
    power = np.random.default_rng(0).uniform(1e-3, 10, (1, 5, 7))
    for scaling in ("amplitude_to_db", "log"):
        mel = MelSpec(scaling=scaling, mean=-4.5, std=5.0)
        np.testing.assert_allclose(to_power(from_power(power, mel), mel), power, rtol=1e-4)
    mel = MelSpec(scaling="amplitude_to_db", top_db=60.0)
    assert limit_range(np.array([[0.0, -70.0]]), mel).tolist() == [[0.0, -60.0]]


def test_windows_and_banks():
    np.testing.assert_allclose(window_function("hann", 5, 5, periodic=False), np.hanning(5), atol=1e-15)
    np.testing.assert_allclose(window_function("hann", 3, 8, periodic=False), [0, 0, 0, 1, 0, 0, 0, 0], atol=1e-15)
    kaldi = mel_filterbank(sr=16_000, n_fft=512, n_mels=40, htk=True, norm=None, mel_banks="kaldi")
    hz = mel_filterbank(sr=16_000, n_fft=512, n_mels=40, htk=True, norm=None)
    assert kaldi[:, -1].max() == 0 and 0.001 < np.abs(kaldi - hz)[:, :-1].max() < 0.1


# === Windows ===


def test_windows_that_are_centred_one_by_one_lie_side_by_side():
    spec = make_spec(16_000, 1_000, n_fft=64, hop_length=16, n_mels=8)
    y = np.random.default_rng(0).uniform(-1, 1, 3_500).astype("float32")
    batches = list(cut(np.split(y, [17, 1_800]), spec))
    found = np.concatenate([batch.samples for batch in batches])
    np.testing.assert_array_equal(found, y[:3_000].reshape(3, 1_000))
    assert np.concatenate([batch.offsets for batch in batches]).tolist() == [0, 1_000, 2_000]
    align = dataclasses.replace(spec, window=dataclasses.replace(spec.window, remainder="align"))
    last = list(cut([y], align))[-1]
    assert last.offsets.tolist() == [0, 1_000, 2_000, 2_500]
    np.testing.assert_array_equal(last.samples[-1], y[-1_000:])
    hop = next(iter(cut([y], spec, hop_samples=777)))
    assert hop.offsets.tolist() == [0, 777, 1_554, 2_331]
    np.testing.assert_array_equal(hop.samples[1], y[777:1_777])


@pytest.mark.parametrize(("short", "tail"), [("pad", np.zeros(300)), ("repeat", np.arange(300))])
def test_a_short_track_fills_one_window(short, tail):
    spec = make_spec(16_000, 1_000, {"short": short}, n_fft=64, hop_length=16, n_mels=8)
    y = np.arange(700, dtype="float32")
    (batch,) = cut([y], spec)
    np.testing.assert_array_equal(batch.samples, [np.concatenate([y, tail])])


def test_hops_are_whole_frames_where_windows_are_not_centred():
    spec = ModelSpec(
        name="x", architecture="tiny", audio=AudioSpec(sr=16_000), mel=MelSpec(n_fft=64, hop_length=16), tags=("a",),
        window=WindowSpec(frames=10),
    )  # fmt: skip
    y = np.random.default_rng(0).uniform(-1, 1, 900).astype("float32")
    (by_frames,), (by_samples,) = cut([y], spec, hop_frames=3), cut([y], spec, hop_samples=48)
    np.testing.assert_array_equal(by_frames.samples, by_samples.samples)
    assert by_frames.offsets.tolist() == (16 * by_frames.starts).tolist()
    with pytest.raises(ValueError, match="hop_samples must be a multiple of hop_length=16; got 50"):
        list(cut([y], spec, hop_samples=50))
    with pytest.raises(ValueError, match="Give hop_frames or hop_samples, not both; got 3 and 48"):
        list(cut([y], spec, hop_frames=3, hop_samples=48))


def test_derived_numbers():
    assert (TORCHAUDIO.window_samples, TORCHAUDIO.window_step, TORCHAUDIO.window_seconds) == (48_000, 48_000, 3.0)
    assert KALDI.mel.frames(320_000) == 1_000 and KALDI.mel.least_samples(1_000) == 319_681
    with pytest.raises(InvalidSamplesError, match="needs at least 2 samples; got 1"):
        LogMelSpectrogram(preemphasis_coefficient=0.5)(np.zeros((1, 1), "float32"))


# === What is refused ===


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("mel", {"pad_mode": "edge"}, r"mel\.pad_mode must be one of 'constant', 'reflect'; got 'edge'"),
        ("mel", {"mel_banks": "htk"}, r"mel\.mel_banks must be one of 'librosa', 'kaldi'; got 'htk'"),
        ("mel", {"mel_banks": "kaldi", "htk": False}, r"'kaldi' needs htk=True and norm=None; got htk=False"),
        ("mel", {"preemphasis_coefficient": 2.0}, r"preemphasis_coefficient must be from 0 to 1; got 2\.0"),
        ("mel", {"std": 0.0}, r"mel\.std must be positive and mel\.mean finite; got 1e-05, 0\.0 and 0\.0"),
        ("mel", {"periodic": "no"}, r"mel\.periodic must be one of True, False; got 'no'"),
        ("mel", {"center": False}, r"window\.samples must be None unless mel\.center is true; got 48000"),
        ("mel", {"preemphasis": 0.97}, r"Unknown field mel\.preemphasis\. Known: amin"),
        ("window", {"samples": None}, r"mel\.center=True needs window\.samples, .*; got None"),
        ("window", {"samples": 1_000}, r"window\.samples=1000 gives 4 frames, but window\.frames is 188"),
        ("window", {"samples": 200, "frames": 1}, r"window\.samples=200 is too short to be padded by 256"),
    ],
)
def test_front_ends_that_cannot_be(part, change, message):
    data = TORCHAUDIO.to_dict()
    data[part] = {**data[part], **change}
    with pytest.raises(SpecError, match=message):
        ModelSpec.from_dict(data)
