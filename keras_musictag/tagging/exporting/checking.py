"""Running a written file beside Keras: what it changes, and whether that is little enough."""

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
# Largest and mean absolute change of a probability with which a file is kept. float32 is a promise; what lower
# precision costs depends on the network, and beyond these bounds something is wrong. Measured for the zoo:
# docs/exports.md.
_BOUNDS = {"float32": (1e-4, 1e-4), "float16": (0.1, 0.005), "int8": (0.3, 0.01)}


def compare(info: ExportInfo, tagger: NetworkTagger, folder: Path, sounds: np.ndarray) -> ExportInfo:
    """Run written files, and Keras at float32, on the same windows.

    Args:
        info: what was written.
        tagger: what it was written from.
        folder: where it is.
        sounds: float32 `(windows, window_samples)`.

    Returns:
        `info` with what was measured.

    Raises:
        ExportError: the files do not run, or say something else than Keras.
    """
    # Batches of different lengths: the first alone.
    ends = [0, 1, *range(1 + _BATCH, len(sounds), _BATCH), len(sounds)]
    batches = [sounds[start:end] for start, end in itertools.pairwise(ends)]
    expected = np.concatenate([tagger._waveform_runtime.predict(batch) for batch in batches])
    most, mean, versions = 0.0, 0.0, []
    for predict, version in _runners(info, tagger, folder):
        change = np.abs(np.concatenate([predict(batch) for batch in batches]) - expected)
        # NaN wins: max() would drop it.
        most, mean = float(np.maximum(most, change.max())), float(np.maximum(mean, change.mean()))
        versions.append(version)
    limits = _BOUNDS[info.precision]
    if not (most <= limits[0] and mean <= limits[1]):  # nor NaN
        raise ExportError(
            f"The {info.format} file runs ({', '.join(versions)}), but says something else than Keras: on "
            f"{len(sounds)} windows its probabilities differ by up to {most:.1e}, {mean:.1e} in the mean, where "
            f"{limits[0]:.0e} and {limits[1]:.0e} are allowed at {info.precision}. It was deleted. Try another format"
            f"{', or calibration with sounds of your own' if info.precision == 'int8' else ''}."
        )
    return dataclasses.replace(
        info, checked_with=", ".join(versions), windows=len(sounds), max_change=most, mean_change=mean
    )


def _runners(
    info: ExportInfo, tagger: NetworkTagger, folder: Path
) -> Iterator[tuple[Callable[[np.ndarray], np.ndarray], str]]:
    """Waveforms to probabilities by the written files, on each runtime that is installed, and its version."""
    for runtime in filter(is_installed, readers(info.format)):
        exported = ExportedTagger.from_folder(folder, runtime)
        yield exported._waveform_runtime.predict, exported._network.version
    if info.format == "saved_model":
        from . import saved_model

        network, front_end = saved_model.open_folder(folder / "saved_model"), LogMel(tagger.spec)
        yield (lambda x: network(front_end(x) if info.input == "log_mel" else x)), saved_model.version()
