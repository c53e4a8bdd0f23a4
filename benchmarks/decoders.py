"""What decoders of sound files cost: python benchmarks/decoders.py [--seconds N].

The bundled clip, as stereo of 44.1 kHz and repeated, is encoded with ffmpeg (which must be installed) in usual formats.
Printed are milliseconds per minute of sound on one core, medians, the decoders in turns: `load` of this package to 12
kHz mono, the same without resampling, and what only decodes: libsndfile (python-soundfile), PyAV, ffmpeg as a process,
and miniaudio where it is installed (`pip install miniaudio`: dr_mp3 after minimp3, dr_flac, stb_vorbis). In brackets,
the largest change of any probability of musicnet_crnn against `load`. Wants a machine that does nothing else.
"""

from __future__ import annotations

import os

if __name__ == "__main__":  # before anything imports a backend
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse
import importlib.util
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import soundfile
from tqdm import tqdm

import keras_musictag as kmt
from keras_musictag.apps.benchmarking.machine import keep_to, processor
from keras_musictag.utils.tables import Table

RATE, MODEL = 44_100, "musicnet_crnn"
FORMATS = {
    "MP3, 128 kb/s": ("mp3", ["-c:a", "libmp3lame", "-b:a", "128k"]),
    "MP3, 320 kb/s": ("mp3", ["-c:a", "libmp3lame", "-b:a", "320k"]),
    "AAC, 128 kb/s": ("m4a", ["-c:a", "aac", "-b:a", "128k"]),
    "Opus, 96 kb/s": ("opus", ["-c:a", "libopus", "-b:a", "96k"]),
    "Vorbis, quality 5": ("ogg", ["-c:a", "libvorbis", "-q:a", "5"]),
    "FLAC": ("flac", ["-c:a", "flac"]),
    "WAV, 16 bit": ("wav", ["-c:a", "pcm_s16le"]),
}
Sound = tuple[np.ndarray, int]  # mono samples and their rate


def ours(path: Path) -> Sound:
    """To the rate of the model."""
    rate = kmt.model_info(MODEL).audio.sr
    return kmt.audio.load(path, target_sr=rate), rate


def ours_alone(path: Path) -> Sound:
    """At the rate of the file."""
    rate = soundfile.info(path).samplerate if path.suffix != ".m4a" else RATE
    return kmt.audio.load(path, target_sr=rate), rate


def libsndfile(path: Path) -> Sound:
    """The whole file at once."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return samples.mean(axis=1), rate


def pyav(path: Path) -> Sound:
    """FFmpeg's libraries, frame by frame."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        frames = [frame.to_ndarray() for frame in container.decode(stream)]
        planar = stream.codec_context.format.is_planar
        joined = np.concatenate(frames, axis=1)
        mono = joined.mean(axis=0) if planar else joined.reshape(-1, stream.codec_context.channels).mean(axis=1)
        scale = 1.0 if joined.dtype.kind == "f" else float(-np.iinfo(joined.dtype).min)
        return (mono / scale).astype("float32"), stream.codec_context.sample_rate


def ffmpeg(path: Path) -> Sound:
    """A process, mixed to mono by it."""
    command = ["ffmpeg", "-v", "error", "-threads", "1", "-i", path, "-f", "f32le", "-ac", "1", "-ar", str(RATE), "-"]
    return np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, "float32"), RATE


def miniaudio(path: Path) -> Sound:
    """Single-file decoders, mixed to mono by them."""
    import miniaudio as library

    decode = {".mp3": library.mp3_read_file_f32, ".flac": library.flac_read_file_f32, ".ogg": library.vorbis_read_file}
    sound = decode.get(path.suffix, library.wav_read_file_f32)(str(path))
    samples = np.frombuffer(sound.samples, {".ogg": "int16"}.get(path.suffix, "float32")).reshape(-1, sound.nchannels)
    return samples.mean(axis=1, dtype="float32") / (2**15 if path.suffix == ".ogg" else 1), sound.sample_rate


def decoders() -> dict[str, Callable[[Path], Sound]]:
    """By the name of the column."""
    found: dict[str, Callable[[Path], Sound]] = {
        "load, 12 kHz": ours, "load, rate of the file": ours_alone, "libsndfile": libsndfile, "PyAV": pyav,
        "ffmpeg": ffmpeg,
    }  # fmt: skip
    return found | ({"miniaudio": miniaudio} if importlib.util.find_spec("miniaudio") else {})


def encode(folder: Path, seconds: float) -> dict[str, Path]:
    """A file in each format."""
    clip = kmt.audio.load(kmt.demo_clip(), target_sr=RATE)
    mono = np.resize(clip, round(seconds * RATE))
    source = folder / "source.wav"
    soundfile.write(source, np.column_stack([mono, 0.8 * np.roll(mono, 20)]), RATE, subtype="PCM_16")
    files = {}
    for number, (name, (suffix, options)) in enumerate(FORMATS.items()):
        files[name] = folder / f"{number}.{suffix}"
        subprocess.run(["ffmpeg", "-v", "error", "-i", source, *options, files[name]], check=True)
    return files


def measure(path: Path, rounds: int, tagger: kmt.Tagger) -> dict[str, tuple[float, float]]:
    """Decoder -> seconds, and the largest change of a probability; of those that read the file."""
    times: dict[str, list[float]] = {}
    sounds: dict[str, Sound] = {}
    for turn in range(rounds + 1):
        for name, decode in decoders().items():
            if turn and name not in sounds:
                continue
            started = time.perf_counter()
            try:
                sounds[name] = decode(path)
            except Exception as error:  # a format that it has no decoder for
                tqdm.write(f"{name} does not read {path.suffix}: {error}")
                continue
            times.setdefault(name, []).append(time.perf_counter() - started)
    tags = {name: probabilities(tagger, *sound) for name, sound in sounds.items()}
    expected = tags["load, 12 kHz"]
    return {name: (float(np.median(times[name][1:])), float(np.abs(tags[name] - expected).max())) for name in sounds}


def probabilities(tagger: kmt.Tagger, samples: np.ndarray, rate: int) -> np.ndarray:
    """Of all tags."""
    found = tagger.tag(samples, rate)
    return np.asarray([found[tag] for tag in tagger.tags])


def main() -> None:
    """Time and print."""
    parser = argparse.ArgumentParser(description="Time decoders of sound files.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    if shutil.which("ffmpeg") is None:
        parser.error("ffmpeg is needed to make the files. Install it.")
    keep_to(1)
    tagger, rows = kmt.load(MODEL), []
    with tempfile.TemporaryDirectory() as folder:
        for name, path in tqdm(encode(Path(folder), given.seconds).items(), unit="format", delay=2):
            found = measure(path, given.rounds, tagger)
            cells = (
                f"{1000 * found[each][0] * 60 / given.seconds:.0f} ({found[each][1]:.0e})" if each in found else ""
                for each in decoders()
            )
            rows.append((name, *cells))
    print(f"{processor()}, one core, ms per minute of sound, medians of {given.rounds}\n")
    print(Table(("format", *decoders()), rows, "<>").markdown())


if __name__ == "__main__":
    main()
