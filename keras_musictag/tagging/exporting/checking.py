"""Comparison of an exported file with Keras at float32."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...models.mel import LogMel
from ..exported import ExportedTagger, ExportError, ExportInfo
from ..runtimes import is_installed, readers

if TYPE_CHECKING:
    from ..network_tagger import NetworkTagger

_BATCH = 8  # windows
# Bounds on the largest and mean absolute change of a probability. float32 must agree with Keras. The change at lower
# precision depends on the network; beyond these bounds something is wrong. Measured for the zoo: docs/exports.md.
_MAX_CHANGES = {"float32": (1e-4, 1e-4), "float16": (0.1, 0.005), "int8": (0.3, 0.01)}


def compare(info: ExportInfo, tagger: NetworkTagger, folder: Path, waveforms: np.ndarray) -> ExportInfo:
    """Run an export, and Keras at float32, on the same windows.

    Args:
        info: content of `export.json`.
        tagger: the tagger that was exported.
        folder: folder of the export.
        waveforms: float32 `(windows, window_samples)`.

    Returns:
        `info` with the results.

    Raises:
        ExportError: the files do not run, or their probabilities differ from those of Keras.
    """
    # The first window alone, to test batches of different sizes.
    ends = [0, 1, *range(1 + _BATCH, len(waveforms), _BATCH), len(waveforms)]
    batches = [waveforms[start:end] for start, end in itertools.pairwise(ends)]
    expected = np.concatenate([tagger.predict_waveforms(batch) for batch in batches])
    largest, mean, versions = 0.0, 0.0, []
    for predict, version in _runners(info, tagger, folder):
        change = np.abs(np.concatenate([predict(batch) for batch in batches]) - expected)
        # np.maximum keeps NaN, which max() may drop.
        largest, mean = float(np.maximum(largest, change.max())), float(np.maximum(mean, change.mean()))
        versions.append(version)
    max_largest, max_mean = _MAX_CHANGES[info.precision]
    if not (largest <= max_largest and mean <= max_mean):  # true for NaN too
        calibrate = ", or calibrate with your own audio" if info.precision == "int8" else ""
        raise ExportError(
            f"The {info.format} file runs ({', '.join(versions)}), but its probabilities differ from those of Keras: "
            f"on {len(waveforms)} windows by up to {largest:.1e}, {mean:.1e} on average, where {max_largest:.0e} and "
            f"{max_mean:.0e} are allowed at {info.precision}. It was deleted. Try another format{calibrate}."
        )
    return dataclasses.replace(
        info, checked_with=", ".join(versions), windows=len(waveforms), max_change=largest, mean_change=mean
    )


def _runners(
    info: ExportInfo, tagger: NetworkTagger, folder: Path
) -> Iterator[tuple[Callable[[np.ndarray], np.ndarray], str]]:
    """Yield, for each installed runtime, a function from waveforms to probabilities and the runtime's version."""
    for runtime in readers(info.format):
        if is_installed(runtime):
            exported = ExportedTagger.from_folder(folder, runtime)
            yield exported.predict_waveforms, exported.runtime_version
    if info.format == "saved_model":
        from . import saved_model

        network, front_end = saved_model.open_folder(folder / "saved_model"), LogMel(tagger.spec)

        def predict(batch: np.ndarray) -> np.ndarray:
            return network(front_end(batch) if info.input == "log_mel" else batch)

        yield predict, saved_model.version()
