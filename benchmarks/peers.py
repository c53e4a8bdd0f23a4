"""musicnet_crnn against what people would run instead: the same clip and weights, in turns, in one process.

    python benchmarks/peers.py [--write] [--calibration FOLDER]

Contests: from a log-mel to tags, from an MP3 file to tags, many files, from the shell. The reference of the first is
`model.predict`, of the next two librosa with `model.predict`, the way such projects do it. Ratios are of medians, with
95 % intervals from resamples of the rounds. `--write` puts them into `results/peers.json` and `docs/peers.md`. PyTorch,
ONNX Runtime, OpenVINO and LiteRT take part if they are installed.
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

import librosa
import numpy as np
import soundfile
from tqdm import tqdm

import keras_musictag as kmt
from keras_musictag.benchmarking.complexity import multiply_adds
from keras_musictag.benchmarking.machine import describe
from keras_musictag.mel import LogMel
from keras_musictag.runtime import is_installed
from keras_musictag.weights import write_atomically

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "peers.json", ROOT / "docs" / "peers.md"
MODEL = "musicnet_crnn"
SECONDS, RATE = 29.12, 44_100
PAUSE = 0.02  # seconds between calls: worker threads of one library go on spinning for a while
WARM_UP = 3
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

Calls = dict[str, Callable[[], np.ndarray]]


# === Peers ===


def original(core: Any, spec: Any) -> Callable[[Path], np.ndarray]:
    """The pipeline as such projects write it down: librosa for everything, then `model.predict`."""

    def tag(path: Path) -> np.ndarray:
        samples, _ = librosa.load(path, sr=spec.audio.sr)
        mel = librosa.feature.melspectrogram(
            y=samples, sr=spec.audio.sr, n_fft=spec.mel.n_fft, hop_length=spec.mel.hop_length, n_mels=spec.mel.n_mels
        )
        log_mel = librosa.power_to_db(mel)[:, : spec.window.frames]
        return core.predict(log_mel[None], verbose=0)

    return tag


def torch_network(core: Any) -> Any:
    """The same network with the same weights in PyTorch."""
    import torch
    from torch import nn

    def tensor(values: Any) -> Any:
        return torch.from_numpy(np.ascontiguousarray(values))

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.Sequential()
            for index in range(1, 5):
                conv, norm = core.get_layer(f"conv{index}"), core.get_layer(f"bn{index}")
                kernel, bias = conv.get_weights()
                own = nn.Conv2d(kernel.shape[2], kernel.shape[3], 3, padding=1)
                own.weight.data, own.bias.data = tensor(kernel.transpose(3, 2, 0, 1)), tensor(bias)
                own_norm = nn.BatchNorm2d(kernel.shape[3], eps=norm.epsilon)
                values = [tensor(value) for value in norm.get_weights()]
                own_norm.weight.data, own_norm.bias.data, own_norm.running_mean, own_norm.running_var = values
                pool = core.get_layer(f"pool{index}").pool_size
                self.blocks.extend([own, own_norm, nn.ReLU(), nn.MaxPool2d(pool)])
            self.gru1, self.gru2 = (self.gru(core.get_layer(f"gru{index}")) for index in (1, 2))
            kernel, bias = core.get_layer("head").get_weights()
            self.head = nn.Linear(*kernel.shape)
            self.head.weight.data, self.head.bias.data = tensor(kernel.T), tensor(bias)

        @staticmethod
        def gru(layer: Any) -> Any:
            kernel, recurrent, bias = layer.get_weights()

            def ordered(values: np.ndarray) -> Any:  # Keras: update, reset, new; PyTorch: reset, update, new
                update, reset, new = np.split(values, 3, axis=-1)
                return tensor(np.concatenate([reset, update, new], axis=-1).T)

            own = nn.GRU(kernel.shape[0], layer.units, batch_first=True)
            own.weight_ih_l0.data, own.weight_hh_l0.data = ordered(kernel), ordered(recurrent)
            own.bias_ih_l0.data, own.bias_hh_l0.data = ordered(bias[0]), ordered(bias[1])
            return own

        def forward(self, log_mel: Any) -> Any:
            x = self.blocks(log_mel[:, None])
            x = x.permute(0, 3, 2, 1).flatten(2)  # time, then mels, then channels
            x, _ = self.gru1(x)
            x, _ = self.gru2(x)
            return torch.sigmoid(self.head(x[:, -1]))

    return Network().eval()


def torch_calls(core: Any, log_mel: np.ndarray) -> Calls:
    """PyTorch as it is, and compiled."""
    import torch

    network = torch_network(core)
    compiled = torch.compile(torch_network(core))
    given = torch.from_numpy(log_mel)

    def run(model: Any) -> Callable[[], np.ndarray]:
        def call() -> np.ndarray:
            with torch.inference_mode():
                return model(given).numpy()

        return call

    return {"PyTorch, eager": run(network), "PyTorch, compiled": run(compiled)}


def kind_of(runtime: str) -> str:
    """The format that a runtime gets."""
    return "litert" if runtime == "litert" else "onnx"


def exported(tagger: kmt.Tagger, folder: Path, calibration: list[Path]) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Name -> exported tagger, and what is known of the file."""
    found = {}
    for runtime, precision, name in EXPORTS:
        if is_installed(runtime):
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


def from_log_mel(tagger: kmt.Tagger, exports: dict[str, Any], log_mel: np.ndarray, rounds: int) -> dict[str, Any]:
    """From a log-mel to tags; every float32 peer must say the same."""
    core = tagger.core
    calls: Calls = {
        PREDICT: lambda: core.predict(log_mel, verbose=0),
        "model(x)": lambda: np.asarray(core(log_mel, training=False)),
        OURS: lambda: tagger._run_log_mel.predict(log_mel),
    }
    if importlib.util.find_spec("torch"):
        calls |= torch_calls(core, log_mel)
    for name, (other, _) in exports.items():
        calls[name] = lambda other=other: other._run_log_mel.predict(log_mel)  # type: ignore[misc]
    expected = calls[PREDICT]()
    changes = {name: float(np.abs(call() - expected).max()) for name, call in calls.items()}
    for name, change in changes.items():
        reduced = name in exports and any(name == title and kind != "float32" for _, kind, title in EXPORTS)
        if not reduced and change > 1e-4:
            raise SystemExit(f"{name} says something else than {PREDICT}: probabilities differ by {change}.")
    rows = summary(in_turns(calls, rounds, "log-mel to tags"), PREDICT)
    gflop = 2 * multiply_adds(core) / 1e9
    for name, row in rows.items():
        row |= {"max_change": changes[name], "gflops": round(1000 * gflop / row["median_ms"], 1)}
        row |= {"size": exports[name][1]["size"]} if name in exports else {}
    return rows


def from_file(tagger: kmt.Tagger, exports: dict[str, Any], clip: Path, rounds: int) -> dict[str, Any]:
    """From an MP3 file to tags."""
    pipeline = original(tagger.core, tagger.spec)
    calls: dict[str, Callable[[], object]] = {PIPELINE: lambda: pipeline(clip), OURS: lambda: tagger.tag(clip)}
    for name, (other, _) in exports.items():
        calls[name] = lambda other=other: other.tag(clip)  # type: ignore[misc]
    return summary(in_turns(calls, rounds, "file to tags"), PIPELINE)


def many_files(tagger: kmt.Tagger, exports: dict[str, Any], clip: Path, rounds: int) -> dict[str, Any]:
    """Many MP3 files, milliseconds per file."""
    pipeline, files = original(tagger.core, tagger.spec), [clip] * 16
    calls: dict[str, Callable[[], object]] = {
        PIPELINE: lambda: [pipeline(path) for path in files],
        OURS: lambda: list(tagger.tag_many(files)),
    }
    for name, (other, _) in exports.items():
        calls[name] = lambda other=other: list(other.tag_many(files))  # type: ignore[misc]
    rows = summary(in_turns(calls, rounds, "many files"), PIPELINE)
    return {
        name: {key: round(value / len(files), 3) if key.endswith("_ms") else value for key, value in row.items()}
        for name, row in rows.items()
    }


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
    "many": "Many MP3 files, per file",
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
            cells = [
                name,
                f"{row['median_ms']:.1f} [{row['p10_ms']:.1f}, {row['p90_ms']:.1f}]",
                f"{row['ratio']:.3f} [{row['ratio_low']:.3f}, {row['ratio_high']:.3f}]",
            ]
            if extra:
                share = row["gflops"] / results["machine"]["matmul_gflops"]
                size = f"{row['size'] / 1e6:.2f}" if "size" in row else ""
                cells += [f"{row['gflops']:.0f}", f"{share:.0%}", f"{row['max_change']:.0e}", size]
            lines.append(line(cells))
        lines.append("")
    return "\n".join(lines)


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
    tagger = kmt.load(MODEL)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mono = np.resize(kmt.audio.load(kmt.demo_clip(), target_sr=RATE), round(SECONDS * RATE))
        clip = folder / "clip.mp3"
        soundfile.write(clip, np.stack([mono, mono], axis=1), RATE, format="MP3")
        exports = exported(tagger, folder, sounds)
        (window,) = tagger._windows(clip, None, 0.0, None)
        log_mel = LogMel(tagger.spec)(window.samples)[:1]
        few = max(3, given.rounds // 4)
        contests = {
            "log_mel": from_log_mel(tagger, exports, log_mel, given.rounds),
            "file": from_file(tagger, exports, clip, given.rounds),
            "many": many_files(tagger, exports, clip, few),
            "shell": from_the_shell(folder, clip, few),
        }
    words = [Path(word).name if "/" in word else word for word in sys.argv[1:]]
    results = {
        "machine": describe(os.cpu_count() or 1),
        "command": shlex.join(["python", "benchmarks/peers.py", *words]),
        "contests": contests,
    }
    print(page(results))
    if given.write:
        RESULTS.parent.mkdir(exist_ok=True)
        write_atomically(RESULTS, (json.dumps(results, indent=1) + "\n").encode())
        write_atomically(PAGE, page(results).encode())


if __name__ == "__main__":
    main()
