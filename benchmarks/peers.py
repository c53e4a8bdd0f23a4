"""musicnet_crnn against what people would run instead: the same clip and weights, in turns, in one process.

    python benchmarks/peers.py [--write] [--calibration FOLDER]

Contests: from a log-mel to tags, from an MP3 file to tags, a song, many files, a library, from the shell. The reference
of the first is `model.predict`; of files and libraries librosa with `model.predict`, the way such projects do it.
musicnn takes part too, as it was published and as it is here. Models that others published for PyTorch have a contest
each, from log-mels to tags: in PyTorch, and here. Ratios are of medians, with 95 % intervals from resamples of the
rounds. For a library there is also a bound: what all cores could do if each did all stages, one after the other, as
fast as one thread does them alone. `--write` puts it all into `results/peers.json` and `docs/peers.md`. PyTorch, ONNX
Runtime, OpenVINO and LiteRT take part if they are installed. Wants a machine that does nothing else.
"""

from __future__ import annotations

import os

if __name__ == "__main__":  # before anything imports a backend
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse
import functools
import importlib.util
import json
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from peer_pipelines import Calls, original, original_musicnn, published, torch_calls
from tqdm import tqdm

import keras_musictag as kmt
from keras_musictag.apps.benchmarking.benchmark_results import stages
from keras_musictag.apps.benchmarking.complexity import multiply_adds
from keras_musictag.apps.benchmarking.job import Job, windows_of
from keras_musictag.apps.benchmarking.machine import describe
from keras_musictag.apps.benchmarking.suite import run_job
from keras_musictag.models.mel import LogMel
from keras_musictag.tagging.runtimes import is_installed
from keras_musictag.utils.cores import available_cores
from keras_musictag.utils.files import write_atomically

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "peers.json", ROOT / "docs" / "peers.md"
MODEL = "musicnet_crnn"
PYTORCH_MODELS = ("won_fcn_mtt", "won_crnn_mtt", "won_musicnn_mtt", "mn04_audioset")  # published for PyTorch
SECONDS, RATE = 29.12, 44_100
SONG_SECONDS = 240
PAUSE = 0.02  # seconds between calls: worker threads of one library go on spinning for a while
WARM_UP = 3
LIBRARY_FILES = (10, 60)  # of the two runs
# Runtime, precision, what it is called.
EXPORTS = (
    ("onnxruntime", "float32", "ONNX Runtime"),
    ("onnxruntime", "int8", "ONNX Runtime, int8"),
    ("openvino", "float32", "OpenVINO"),
    ("openvino", "float16", "OpenVINO, bfloat16"),
    ("openvino", "int8", "OpenVINO, int8"),
    ("litert", "float32", "LiteRT"),
    ("litert", "int8", "LiteRT, int8"),
)
PREDICT, PIPELINE, OURS = "model.predict", "librosa and model.predict", "keras_musictag, Keras"
MUSICNN_PREDICT, MUSICNN_PIPELINE, MUSICNN_OURS = (f"musicnn, {name}" for name in (PREDICT, PIPELINE, OURS))


# === Exports ===


def kind_of(runtime: str) -> str:
    """The format that a runtime gets."""
    return "litert" if runtime == "litert" else "onnx"


def exported(
    tagger: kmt.Tagger, folder: Path, calibration: list[Path], precisions: tuple[str, ...] | None = None
) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Name -> exported tagger, and what is known of the file."""
    found = {}
    for runtime, precision, name in EXPORTS:
        if is_installed(runtime) and (precisions is None or precision in precisions):
            path = folder / f"{kind_of(runtime)}-{precision}"
            if not path.is_dir():
                file_format = kind_of(runtime)
                tagger.export(path, format=file_format, precision=precision, input="log_mel", calibration=calibration)
            info = json.loads((path / "export.json").read_text(encoding="utf-8"))
            about = {key: info[key] for key in ("size", "mean_change", "max_change")}
            found[name] = (kmt.load(path, runtime=runtime), about)
    return found


# === Contests ===


def in_turns(calls: dict[str, Callable[[], object]], rounds: int, title: str) -> dict[str, list[float]]:
    """Milliseconds of each call in each round."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in tqdm(range(WARM_UP + rounds), desc=title, unit="round", delay=2):
        for name, call in calls.items():
            time.sleep(PAUSE)
            started = time.perf_counter()
            call()
            if turn >= WARM_UP:
                times[name].append(1000 * (time.perf_counter() - started))
    return times


def summary(times: dict[str, list[float]], reference: str) -> dict[str, dict[str, float]]:
    """Medians, and ratios to the reference with intervals from resamples of the rounds."""
    every = {name: np.array(values) for name, values in times.items()}
    rounds = len(every[reference])
    picks = np.random.default_rng(0).integers(rounds, size=(1000, rounds))
    base = np.median(every[reference][picks], axis=1)
    rows = {}
    for name, values in every.items():
        ratios = np.median(values[picks], axis=1) / base
        p10, median, p90 = np.percentile(values, (10, 50, 90))
        rows[name] = {
            "median_ms": median, "p10_ms": p10, "p90_ms": p90, "ratio": median / np.median(every[reference]),
            "ratio_low": np.percentile(ratios, 2.5), "ratio_high": np.percentile(ratios, 97.5), "calls": rounds,
        }  # fmt: skip
    return {name: {key: round(float(value), 4) for key, value in row.items()} for name, row in rows.items()}


def log_mels(tagger: kmt.Tagger, clip: Path) -> np.ndarray:
    """Of the clip's windows, `(windows, mels, frames)`."""
    return LogMel(tagger.spec)(windows_of(clip, tagger.spec))


def from_log_mel(
    tagger: kmt.Tagger, other: kmt.Tagger, exports: dict[str, Any], clip: Path, rounds: int
) -> dict[str, Any]:
    """From a log-mel to tags; every float32 peer but musicnn (`other`) must say the same."""
    core, log_mel, patches = tagger.core, log_mels(tagger, clip), log_mels(other, clip)
    calls: Calls = {
        PREDICT: lambda: core.predict(log_mel, verbose=0),
        "model(x)": lambda: np.asarray(core(log_mel, training=False)),
        OURS: lambda: tagger.predict_log_mels(log_mel),
    }
    if importlib.util.find_spec("torch"):
        calls |= torch_calls(core, log_mel)
    for name, (export, _) in exports.items():
        calls[name] = lambda export=export: export.predict_log_mels(log_mel)  # type: ignore[misc]
    changes = largest_changes(calls)
    calls |= {
        MUSICNN_PREDICT: lambda: other.core.predict(patches, verbose=0),
        MUSICNN_OURS: lambda: other.predict_log_mels(patches),
    }
    rows = summary(in_turns(calls, rounds, "log-mel to tags"), PREDICT)
    gflop, others_gflop = 2 * multiply_adds(core) / 1e9, 2 * len(patches) * multiply_adds(other.core) / 1e9
    for name, row in rows.items():
        row["gflops"] = round(1000 * (gflop if name in changes else others_gflop) / row["median_ms"], 1)
        row |= {"max_change": changes[name]} if name in changes else {}
        row |= {"size": exports[name][1]["size"]} if name in exports else {}
    return rows


def published_for_pytorch(name: str, folder: Path, clip: Path, rounds: int) -> dict[str, Any]:
    """From log-mels to tags with a published model, all windows of the clip as one batch, and which weights it has."""
    tagger, weights = published(name)
    core, given = tagger.core, log_mels(tagger, clip)
    calls: Calls = {PREDICT: lambda: core.predict(given, verbose=0), OURS: lambda: tagger.predict_log_mels(given)}
    if importlib.util.find_spec("torch"):
        calls |= torch_calls(core, given)
    exports = exported(tagger, folder / name, [], ("float32",))
    for title, (export, _) in exports.items():
        calls[title] = lambda export=export: export.predict_log_mels(given)  # type: ignore[misc]
    changes = largest_changes(calls)
    rows = summary(in_turns(calls, rounds, name), "PyTorch, eager" if "PyTorch, eager" in calls else PREDICT)
    for title, row in rows.items():
        row["max_change"] = changes[title]
    return {"weights": weights, "windows": len(given), "rows": rows}


def largest_changes(calls: Calls) -> dict[str, float]:
    """The largest difference of probabilities to `model.predict`, of each call; at float32 there must be none."""
    expected = calls[PREDICT]()
    changes = {name: float(np.abs(call() - expected).max()) for name, call in calls.items()}
    reduced = {title for _, precision, title in EXPORTS if precision != "float32"}
    for name, change in changes.items():
        if name not in reduced and change > 1e-4:
            raise SystemExit(f"{name} says something else than {PREDICT}: probabilities differ by {change}.")
    return changes


def from_file(
    tagger: kmt.Tagger, other: kmt.Tagger, exports: dict[str, Any], clip: Path, rounds: int
) -> dict[str, Any]:
    """From an MP3 file to tags; `other` is musicnn."""
    pipelines, taggers = contestants(tagger, other, exports)
    calls: dict[str, Callable[[], object]] = {
        name: functools.partial(pipeline, clip) for name, pipeline in pipelines.items()
    }
    calls |= {name: functools.partial(each.tag, clip) for name, each in taggers.items()}
    return summary(in_turns(calls, rounds, "file to tags"), PIPELINE)


def from_song(tagger: kmt.Tagger, exports: dict[str, Any], folder: Path, rounds: int) -> dict[str, Any]:
    """From an MP3 of four minutes, whose channels differ, to tags."""
    channels, rate = soundfile.read(str(kmt.demo_clip()), dtype="float32")
    song = folder / "song.mp3"
    soundfile.write(song, np.resize(channels, (SONG_SECONDS * rate, channels.shape[1])), rate, format="MP3")
    taggers = ours(tagger, exports)
    calls: dict[str, Callable[[], object]] = {name: functools.partial(each.tag, song) for name, each in taggers.items()}
    return summary(in_turns(calls, rounds, "song to tags"), OURS)


def many_files(
    tagger: kmt.Tagger, other: kmt.Tagger, exports: dict[str, Any], clip: Path, rounds: int
) -> dict[str, Any]:
    """Many MP3 files with `tag_many`, milliseconds per file; `other` is musicnn."""
    pipelines, taggers = contestants(tagger, other, exports)
    files = [clip] * 16
    calls: dict[str, Callable[[], object]] = {}
    for name, pipeline in pipelines.items():
        calls[name] = lambda pipeline=pipeline: [pipeline(path) for path in files]  # type: ignore[misc]
    for name, each in taggers.items():
        calls[name] = lambda each=each: list(each.tag_many(files))  # type: ignore[misc]
    times = in_turns(calls, rounds, "many files")
    return summary({name: [value / len(files) for value in values] for name, values in times.items()}, PIPELINE)


def library(
    tagger: kmt.Tagger, exports: dict[str, Any], clip: Path, folder: Path, rounds: int
) -> dict[str, dict[str, float]]:
    """A library of MP3 files, milliseconds per file, without starting: a long run of `tag_library` less a short one."""
    few, many = LIBRARY_FILES
    songs = copies(clip, folder / "songs", many)
    pipeline = original(tagger)
    calls: dict[str, Callable[[], object]] = {PIPELINE: lambda: [pipeline(path) for path in songs[:few]]}
    taggers = ours(tagger, exports)
    for name, each in taggers.items():
        for count in LIBRARY_FILES:
            table = folder / f"{count}.jsonl"
            calls[f"{name}, {count}"] = functools.partial(kmt.tag_library, songs[:count], table, each, resume=False)
    times = in_turns(calls, rounds, "a library")
    per_file = {PIPELINE: [value / few for value in times[PIPELINE]]}
    for name in taggers:
        pairs = zip(times[f"{name}, {few}"], times[f"{name}, {many}"], strict=True)
        per_file[name] = [(long - short) / (many - few) for short, long in pairs]
    return summary(per_file, PIPELINE)


def copies(clip: Path, folder: Path, count: int) -> list[Path]:
    """The same sound in files of different content, by an ID3v1 tag at the end: a library reads no content twice."""
    folder.mkdir()
    paths = [folder / f"{number:04}{clip.suffix}" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(clip.read_bytes() + b"TAG" + f"{number:<125}".encode())
    return paths


def ours(tagger: kmt.Tagger, exports: dict[str, Any]) -> dict[str, Any]:
    """Name -> tagger, with Keras and as exports."""
    return {OURS: tagger, **{name: export for name, (export, _) in exports.items()}}


def contestants(tagger: kmt.Tagger, other: kmt.Tagger, exports: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """From files: name -> pipeline as it was published, name -> tagger."""
    pipelines = {PIPELINE: original(tagger), MUSICNN_PIPELINE: original_musicnn(other)}
    return pipelines, {**ours(tagger, exports), MUSICNN_OURS: other}


def bounds(reached: dict[str, Any], folder: Path, clip: Path) -> dict[str, Any]:
    """How near to what the cores allow a library comes: with Keras, the best float32 export and the best export.

    Each stage is timed in a process of its own that is kept to one core, as `keras-musictag benchmark` does it. Cores
    by the sum of the stages are the clips per second that no arrangement of the same stages exceeds.
    """
    titles = {title: (runtime, precision) for runtime, precision, title in EXPORTS if title in reached}
    fastest = sorted(titles, key=lambda title: reached[title]["median_ms"])
    chosen = [OURS, *[title for title in fastest if titles[title][1] == "float32"][:1], *fastest[:1]]
    found = {}
    for title in tqdm(dict.fromkeys(chosen), desc="stages on one core", unit="tagger", delay=2):
        runtime, precision = titles.get(title, ("keras", ""))
        source = str(folder / f"{kind_of(runtime)}-{precision}") if precision else MODEL
        job = Job(kind="measure", model=title, source=source, runtime=runtime, clip=str(clip), clip_seconds=SECONDS)
        measured = run_job(job, folder)
        if "error" in measured:
            raise SystemExit(f"The stages of {title} could not be timed: {measured['error']}")
        spent = {name: round(value, 3) for name, value in stages(measured).items() if name != "rest"}
        bound = 1000 * available_cores() / sum(spent.values())
        rate = 1000 / reached[title]["median_ms"]
        found[title] = {
            **spent, "bound_clips_per_s": round(bound, 2), "reached_clips_per_s": round(rate, 2),
            "share": round(rate / bound, 4),
        }  # fmt: skip
    return found


def from_the_shell(folder: Path, clip: Path, rounds: int) -> dict[str, Any]:
    """`keras-musictag tag` in a new process, with Keras on TensorFlow and with exports."""
    command = [sys.executable, "-m", "keras_musictag.cli", "tag", str(clip), "--model"]
    commands = {OURS: [*command, MODEL]}
    for runtime, precision, title in EXPORTS:
        if precision == "float32" and is_installed(runtime):
            commands[title] = [*command, str(folder / f"{kind_of(runtime)}-float32"), "--runtime", runtime]
    calls: dict[str, Callable[[], object]] = {
        title: functools.partial(subprocess.run, words, check=True, capture_output=True)
        for title, words in commands.items()
    }
    return summary(in_turns(calls, rounds, "from the shell"), OURS)


# === Output ===

TITLES = {
    "log_mel": "From a log-mel to tags",
    "file": "From an MP3 file to tags",
    "song": "From an MP3 of 4 minutes to tags",
    "many": "Many MP3 files with tag_many, per file",
    "library": "A library of MP3 files with tag_library, per file",
    "shell": "From the shell to tags, new process",
}
HEADER = """# musicnet_crnn and its peers

<!-- {command}; do not edit by hand -->

The same clip of {seconds:g} s and the same weights, in turns in one process; ratios of medians, 95 % intervals from
resamples of the rounds. {processor}, {cores} cores, {date}; NumPy multiplies float32 matrices of 2048 x 2048 at
{matmul_gflops:g} GFLOP/s here.

```bash
{command}
```
"""
BOUNDS = """What {cores} cores allow: each stage timed alone, in a process kept to one core; the bound is {cores} cores
by the sum of the stages, and reached is what the table above says.
"""
MUSICNN = """musicnn (Pons & Serra 2019) is another network, with {weights}: the clip is nine patches of 3 s, what is
left over is dropped, and its operations are its own. `librosa and model.predict` is then its published extractor:
librosa at 16 kHz, `log10(10000 x + 1)`, all patches as one batch."""


def page(results: dict[str, Any]) -> str:
    """Markdown of all contests."""
    lines = [HEADER.format(**results["machine"], command=results["command"], seconds=SECONDS)]
    for key, title in TITLES.items():
        rows = results["contests"].get(key)
        if not rows:
            continue
        extra = key == "log_mel"
        head = ["", "ms [p10, p90]", "ratio", *(["GFLOP/s", "of matmul", "largest change", "MB"] if extra else [])]
        lines += [f"## {title}\n", line(head), line(["---", *["---:"] * (len(head) - 1)])]
        for name, row in rows.items():
            cells = timed(name, row)
            if extra:
                share = row["gflops"] / results["machine"]["matmul_gflops"]
                change = f"{row['max_change']:.0e}" if "max_change" in row else ""
                size = f"{row['size'] / 1e6:.2f}" if "size" in row else ""
                cells += [f"{row['gflops']:.0f}", f"{share:.0%}", change, size]
            lines.append(line(cells))
        lines.append("")
        if key == "library" and "bounds" in results:
            lines += [*table_of_bounds(results["bounds"], results["machine"]["cores"]), ""]
    for name, contest in results.get("published_for_pytorch", {}).items():
        windows = f"{contest['windows']} windows" if contest["windows"] > 1 else "one window"
        lines += [f"## {name}, from log-mels to tags\n", f"With {contest['weights']}; {windows} as one batch.\n"]
        head = ["", "ms [p10, p90]", "ratio", "largest change"]
        lines += [line(head), line(["---", *["---:"] * (len(head) - 1)])]
        lines += [line([*timed(title, row), f"{row['max_change']:.0e}"]) for title, row in contest["rows"].items()]
        lines.append("")
    if "musicnn" in results:
        lines += ["## musicnn\n", MUSICNN.format(weights=results["musicnn"]), ""]
    return "\n".join(lines)


def timed(name: str, row: dict[str, float]) -> list[str]:
    """Name, time and ratio of a row."""
    return [
        name,
        f"{row['median_ms']:.1f} [{row['p10_ms']:.1f}, {row['p90_ms']:.1f}]",
        f"{row['ratio']:.3f} [{row['ratio_low']:.3f}, {row['ratio_high']:.3f}]",
    ]


def table_of_bounds(rows: dict[str, Any], cores: int) -> list[str]:
    """What many files could reach and do."""
    names = ("decoding", "resampling", "features", "network")
    head = ["one thread, ms", *names, "sum", "bound, clips/s", "reached", "share"]
    lines = [BOUNDS.format(cores=cores), line(head), line(["---", *["---:"] * (len(head) - 1)])]
    for name, row in rows.items():
        spent = [row[stage] for stage in names]
        cells = [f"{value:.1f}" for value in (*spent, sum(spent), row["bound_clips_per_s"], row["reached_clips_per_s"])]
        lines.append(line([name, *cells, f"{row['share']:.0%}"]))
    return lines


def line(cells: list[str]) -> str:
    """Of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Hold the contests, print and, if asked, write."""
    parser = argparse.ArgumentParser(description="musicnet_crnn against what people would run instead.")
    parser.add_argument("--rounds", type=int, default=40, help="of the first two contests; a quarter of the others")
    parser.add_argument("--calibration", type=Path, help="folder of sounds for int8")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name} and {PAGE.name}")
    given = parser.parse_args()
    sounds = sorted(path for path in given.calibration.rglob("*") if path.is_file()) if given.calibration else []
    tagger, (other, weights) = kmt.load(MODEL), published("musicnn_mtt")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mono = np.resize(kmt.audio.load(kmt.demo_clip(), target_sr=RATE), round(SECONDS * RATE))
        clip = folder / "clip.mp3"
        soundfile.write(clip, np.stack([mono, mono], axis=1), RATE, format="MP3")
        exports = exported(tagger, folder, sounds)
        few = max(3, given.rounds // 4)
        contests = {
            "log_mel": from_log_mel(tagger, other, exports, clip, given.rounds),
            "file": from_file(tagger, other, exports, clip, given.rounds),
            "song": from_song(tagger, exports, folder, few),
            "many": many_files(tagger, other, exports, clip, few),
            "library": library(tagger, exports, clip, folder, few),
            "shell": from_the_shell(folder, clip, few),
        }
        bound = bounds(contests["library"], folder, clip)
        others = {name: published_for_pytorch(name, folder, clip, given.rounds // 2) for name in PYTORCH_MODELS}
    words = [Path(word).name if "/" in word else word for word in sys.argv[1:]]
    results = {
        "machine": describe(available_cores()),
        "command": shlex.join(["python", "benchmarks/peers.py", *words]),
        "contests": contests,
        "bounds": bound,
        "musicnn": weights,
        "published_for_pytorch": others,
    }
    print(page(results))
    if given.write:
        RESULTS.parent.mkdir(exist_ok=True)
        write_atomically(RESULTS, (json.dumps(results, indent=1) + "\n").encode())
        write_atomically(PAGE, page(results).encode())


if __name__ == "__main__":
    main()
