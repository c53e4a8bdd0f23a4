"""`benchmark`: measure all models on all runtimes in the same way, each in a separate process.

The same clip of music is tagged from a log-mel, from samples in memory and from an MP3 file; models with shorter
windows use several. A measurement that fails gives a row with the error, and the others go on.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ...audio import reading as audio
from ...audio.demo import demo_clip
from ...models import registry
from ...tagging.runtimes import FILE_RUNTIMES, is_installed, require_installed
from ...tagging.runtimes import runtimes as all_runtimes
from ...utils import kept_results
from ...utils.backend import installed_version
from ...utils.cores import available_cores
from .benchmark_results import BenchmarkError, BenchmarkRun
from .job import Job
from .machine import conditions as machine_conditions
from .machine import describe

CLIP_SECONDS = 29.12  # a window of musicnet_crnn; ten of musicnn
_RATE = 44_100
_SIZES_OF = "onnx"  # format of the reported file sizes
_QUICK: dict[str, Any] = {"budget": 0.1, "least": 3}  # instead of the defaults of a `Job`
_TIMEOUT = 900.0  # seconds of a job, except evaluations, whose time depends on the data
PRECISIONS = ("float32", "float16", "int8")


def benchmark(
    models: Sequence[str] | None = None,
    *,
    runtimes: Sequence[str] | None = None,
    precisions: Sequence[str] = PRECISIONS,
    threads: Sequence[int] | None = None,
    data: str | os.PathLike[str] | None = None,
    dataset: str = "",
    split: str = "test",
    calibration: Sequence[str | os.PathLike[str]] = (),
    quick: bool = False,
    work: str | os.PathLike[str] | None = None,
    command: str = "",
    progress: bool = True,
) -> BenchmarkRun:
    """Measure parameters, file sizes, latency, throughput, memory and AUC of models on this machine's CPU.

    Args:
        models: names, folders or Hub addresses; by default all pretrained models.
        runtimes: names of runtimes; by default those that are installed.
        precisions: float32, float16, int8; reduced precisions only where a runtime gains by them, on all cores.
        threads: numbers of CPU threads; by default one, and all cores.
        data: labelled audio (a table, or a folder per tag) to measure the AUC on, with Keras at float32 and at reduced
            precision; by default the AUCs recorded in the specs are used.
        dataset: name of the data; by default that of the file or folder.
        split: split of the data.
        calibration: audio files similar to those that will be tagged, for int8.
        quick: make only a few calls each, as a test.
        work: folder that keeps the results of finished models of the registry. A later call with the same folder and
            settings, on the same machine, versions and commit, measures only the others.
        command: command that was run, for the record.
        progress: show a progress bar.

    Returns:
        `BenchmarkRun`.

    Raises:
        UnknownModelError: a model does not exist.
        BenchmarkError: a runtime or precision does not exist.
        MissingExtraError: a runtime of `runtimes` is not installed.
        DataError: `data` cannot be read.
        EvaluationError: `data` has no rows of the split.
    """
    from tqdm.auto import tqdm

    names = list(models) if models else registry.list_models(pretrained=True)
    for name in names:
        if not name.startswith("hf://") and not Path(name).is_dir():
            registry.model_info(name)
    wanted = _runtimes(runtimes)
    unknown = [precision for precision in precisions if precision not in PRECISIONS]
    if unknown or not precisions:
        raise BenchmarkError(f"precisions must be some of {', '.join(PRECISIONS)}; got {list(precisions)!r}.")
    counts = sorted({1, available_cores()} if threads is None else set(threads))
    if counts[0] < 1 or counts[-1] > available_cores():
        raise BenchmarkError(f"threads must be from 1 to {available_cores()}, the number of cores; got {counts}.")
    labelled = ("", "", split) if data is None else _labelled(data, dataset, split)
    sources = [os.fspath(source) for source in calibration]
    conditions = {
        "runtimes": {name: _version(name) for name in wanted}, "precisions": list(precisions), "threads": counts,
        "data": list(labelled), "calibration": sources, "quick": quick, "machine": machine_conditions(counts[-1]),
    }  # fmt: skip
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        suite = _Suite(Path(folder), wanted, tuple(precisions), counts, quick)
        suite.data = labelled
        suite.calibration = tuple(sources)
        done: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
        with tqdm(total=suite.steps * len(names), unit="job", delay=2, disable=not progress) as bar:
            for name in names:
                bar.set_description(name)
                weights = _weights_of(name)
                settings = conditions | {"model": name, "weights": weights}
                result = kept_results.recall(Path(work), settings) if work and weights else None
                if result is None:
                    result = suite.measure(name, bar.update)
                    if work and weights:
                        kept_results.keep(Path(work), settings, result)
                else:
                    bar.update(suite.steps)
                done.append(result)
    machine = describe(counts[-1])
    machine["matmul_gflops"] = {str(count): matmul_gflops(count) for count in counts}
    return BenchmarkRun(
        machine=machine,
        command=command,
        clip_seconds=CLIP_SECONDS,
        models=tuple(model for model, _ in done),
        rows=tuple(row for _, rows in done for row in rows),
    )


def _weights_of(name: str) -> str:
    """Return the sha256 of the weights of a registered model, empty for others."""
    source = registry.model_info(name).weights if name in registry.list_models() else None
    return source.sha256 if source else ""


def _version(runtime: str) -> str | None:
    return installed_version("keras") if runtime == "keras" else FILE_RUNTIMES[runtime].version()


def _runtimes(runtimes: Sequence[str] | None) -> tuple[str, ...]:
    if runtimes is None:
        return tuple(name for name in all_runtimes() if is_installed(name))
    for name in runtimes:
        if name not in all_runtimes():
            raise BenchmarkError(f"runtimes must be some of {', '.join(all_runtimes())}; got {name!r}.")
        require_installed(name)
    return tuple(runtimes)


def _labelled(data: str | os.PathLike[str], dataset: str, split: str) -> tuple[str, str, str]:
    """Return path, name and split of labelled audio; check before the work that they can be used."""
    from ...datasets import Manifest
    from ...evaluation.measuring import rows_of_split

    rows_of_split(Manifest.load(data), split)
    path = Path(data).resolve()
    return str(path), dataset or (path.name if path.is_dir() else path.stem), split


class _Suite:
    """Measurements of each model."""

    def __init__(
        self, folder: Path, runtimes: tuple[str, ...], precisions: tuple[str, ...], threads: list[int], quick: bool
    ) -> None:
        self.folder, self.runtimes, self.precisions, self.threads, self.quick = (
            folder, runtimes, precisions, threads, quick,
        )  # fmt: skip
        self.clip = _clip(folder)
        self.data = ("", "", "test")
        self.calibration: tuple[str, ...] = ()

    @property
    def variants(self) -> list[tuple[str, str]]:
        """Runtimes with precisions."""
        plain = [(runtime, "float32") for runtime in self.runtimes if "float32" in self.precisions]
        return plain + [
            (runtime, precision)
            for precision in self.precisions
            for runtime, entry in FILE_RUNTIMES.items()
            if runtime in self.runtimes and precision in entry.reduced
        ]

    @property
    def steps(self) -> int:
        """Jobs per model."""
        measured = sum(len(self._counts(precision)) for _, precision in self.variants)
        evaluated = sum(self._is_evaluated(*variant) for variant in self.variants)
        return measured + len(list(self._exports())) + evaluated

    def measure(self, name: str, step: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Measure a model; return the model and its rows."""
        model: dict[str, Any] = {"model": name, "sizes": {}}
        exported = self._export_all(name, step)
        for (file_format, precision), export in exported.items():
            if file_format == _SIZES_OF and "size" in export:
                model["sizes"][precision] = export["size"]
        rows, scores = [], []
        for runtime, precision in self.variants:
            export = exported.get((_format_for(runtime), precision), {})
            for threads in self._counts(precision):
                row = {"model": name, "runtime": runtime, "precision": precision, "threads": threads}
                found = self._row(name, runtime, export, threads)
                for key in _MODEL_KEYS:
                    if key in found:
                        model[key] = found.pop(key)
                rows.append(row | found)
                step()
            if self._is_evaluated(runtime, precision):
                scores.append(self._score(name, runtime, precision, export))
                step()
        windows = next((row["windows"] for row in rows if "windows" in row), 0)
        if "multiply_adds_per_window" in model:
            model["multiply_adds"] = windows * model["multiply_adds_per_window"]
        model["scores"] = scores or recorded_scores(name)
        return model, rows

    def _export_all(self, name: str, step: Any) -> dict[tuple[str, str], dict[str, Any]]:
        """Write the exports of a model, as many at a time as there are cores, because nothing is timed."""

        def write(wanted: tuple[str, str]) -> dict[str, Any]:
            folder = self.folder / name.replace("/", "_") / "-".join(wanted)
            folder.parent.mkdir(parents=True, exist_ok=True)
            job = Job(
                kind="export", model=name, source=name, format=wanted[0], precision=wanted[1], folder=str(folder),
                threads=self.threads[-1], calibration=self.calibration,
            )  # fmt: skip
            with tempfile.TemporaryDirectory(dir=folder.parent) as requests:
                return run_job(job, Path(requests)) | {"folder": str(folder)}

        wanted, exported = list(self._exports()), {}
        with ThreadPoolExecutor(self.threads[-1]) as pool:
            for key, found in zip(wanted, pool.map(write, wanted), strict=True):
                exported[key] = found
                step()
        return exported

    def _row(self, name: str, runtime: str, export: dict[str, Any], threads: int) -> dict[str, Any]:
        if "error" in export:
            return {"error": f"the export failed: {export['error']}"}
        job = Job(
            kind="measure", model=name, source=name if runtime == "keras" else export["folder"], runtime=runtime,
            threads=threads, clip=str(self.clip), clip_seconds=CLIP_SECONDS, **(_QUICK if self.quick else {}),
        )  # fmt: skip
        changes = {key: export[key] for key in ("mean_change", "max_change") if key in export}
        return self._run(job) | changes

    def _score(self, name: str, runtime: str, precision: str, export: dict[str, Any]) -> dict[str, Any]:
        data, dataset, split = self.data
        about = {
            "measured": True, "runtime": runtime, "precision": precision, "threads": self.threads[-1],
            "dataset": dataset, "split": split,
        }  # fmt: skip
        if "error" in export:
            return about | {"error": f"not evaluated, since the export failed: {export['error']}"}
        job = Job(
            kind="evaluate", model=name, source=name if runtime == "keras" else export["folder"], runtime=runtime,
            threads=self.threads[-1], data=data, dataset=dataset, split=split,
        )  # fmt: skip
        found = self._run(job)
        return about | ({"error": f"the evaluation failed: {found['error']}"} if "error" in found else found)

    def _counts(self, precision: str) -> list[int]:
        return self.threads if precision == "float32" else self.threads[-1:]

    def _exports(self) -> Iterator[tuple[str, str]]:
        """Yield the formats and precisions of the files to write."""
        files = {(_format_for(runtime), precision) for runtime, precision in self.variants if runtime != "keras"}
        if any(_format_for(runtime) == _SIZES_OF for runtime in self.runtimes):
            files |= {(_SIZES_OF, precision) for precision in self.precisions}
        yield from sorted(files)

    def _is_evaluated(self, runtime: str, precision: str) -> bool:
        return bool(self.data[0]) and (runtime == "keras" or precision != "float32")

    def _run(self, job: Job) -> dict[str, Any]:
        return run_job(job, self.folder)


def run_job(job: Job, folder: Path) -> dict[str, Any]:
    """Run a job in a separate process.

    Args:
        job: the job.
        folder: folder for request and result.

    Returns:
        Result, or `{"error": reason}`.
    """
    request, result = folder / "job.json", folder / "result.json"
    result.unlink(missing_ok=True)
    request.write_text(json.dumps(dataclasses.asdict(job) | {"started": time.time()}), encoding="utf-8")
    command = [sys.executable, "-m", "keras_musictag.apps.benchmarking.job", str(request), str(result)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    limit = None if job.kind == "evaluate" else _TIMEOUT
    try:
        run = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=limit, env=environment)
    except subprocess.TimeoutExpired:
        return {"error": f"took longer than {_TIMEOUT:.0f} s"}
    if run.returncode == 0 and result.is_file():
        return dict(json.loads(result.read_text(encoding="utf-8")))
    return {"error": _reason(run)}


_MODEL_KEYS = ("parameters", "trainable_parameters", "multiply_adds_per_window", "window_seconds")


def _format_for(runtime: str) -> str:
    """Return the export format that the benchmark runs on a runtime; empty for Keras, which needs none."""
    return FILE_RUNTIMES[runtime].zoo_format if runtime in FILE_RUNTIMES else ""


def _reason(run: subprocess.CompletedProcess[str]) -> str:
    """Return why a process failed, as one line."""
    if run.returncode < 0:
        return f"its process was ended by signal {-run.returncode}"
    lines = [line.strip() for line in run.stderr.splitlines() if line.strip()]
    return lines[-1][:500] if lines else f"its process ended with exit code {run.returncode}"


def _clip(folder: Path) -> Path:
    """Write the bundled clip, repeated to `CLIP_SECONDS`, as a stereo MP3."""
    import soundfile

    mono = np.resize(audio.load(demo_clip(), target_sr=_RATE), round(CLIP_SECONDS * _RATE))
    path = folder / "clip.mp3"
    soundfile.write(path, np.stack([mono, mono], axis=1), _RATE, format="MP3")
    return path


def recorded_scores(name: str) -> list[dict[str, Any]]:
    """Return the scores recorded in the spec of a model, none if it is not registered."""
    if name not in registry.list_models():
        return []
    return [dict(metric) for metric in registry.model_info(name).metrics]


def matmul_gflops(threads: int) -> float:
    """Return the speed of NumPy's matrix product in GFLOP/s on a number of cores, measured in a separate process."""
    code = "from keras_musictag.apps.benchmarking import machine; print(machine.matmul_gflops())"
    limits = {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "OPENBLAS", "MKL", "VECLIB_MAXIMUM")}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | limits
    )  # NumPy starts its threads when it is imported
    return round(float(run.stdout), 1)
