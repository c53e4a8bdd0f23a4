"""MFCC statistics, one vector per clip: the baseline for embeddings.

Mean and standard deviation over time of 20 MFCCs and of their first differences (librosa's defaults at 22,050 Hz), the
timbre features of Tzanetakis & Cook, "Musical genre classification of audio signals" (2002), in today's usual form.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...audio import reading as audio
from ...errors import AudioError
from ...training.embedding_cache import Vectors, cached_vectors, row_blocks

if TYPE_CHECKING:
    from ...datasets import Manifest, Row

NAME = "mfcc"
_KIND = "mfcc-1"  # part of the cache key; to be changed with the values
_RATE = 22_050  # Hz, librosa's default
_COEFFICIENTS = 20
_N_FFT = 2048  # librosa's default, 93 ms
_WIDTH = 9  # frames per difference, librosa's default


class MfccCache:
    """Cache MFCC statistics on disk, with the interface of `embeddings.EmbeddingCache`.

    Args:
        folder: folder, created when needed.
        workers: number of files decoded at once.

    Attributes:
        width: length of a vector, 80.

    Example:
        >>> import tempfile, keras_musictag as kmt
        >>> from keras_musictag.datasets import Manifest, Row
        >>> vectors, failures = MfccCache(tempfile.mkdtemp()).get_many(Manifest([Row(path=kmt.demo_clip())]))
        >>> vectors.shape, failures
        ((1, 80), {})
    """

    width = 4 * _COEFFICIENTS

    def __init__(self, folder: str | os.PathLike[str], *, workers: int = 2) -> None:
        """Read and write nothing yet."""
        self.folder, self.workers = Path(folder), workers

    def get_many(self, manifest: Manifest, *, progress: bool = False) -> tuple[np.ndarray, dict[int, AudioError]]:
        """Return vectors and failures, as `EmbeddingCache.get_many`."""
        compute = functools.partial(self._compute, progress=progress)
        return cached_vectors(manifest, self.folder, _KIND, self.width, compute, self.workers, progress=progress)

    def _compute(self, manifest: Manifest, progress: bool) -> Iterator[Vectors]:
        from tqdm.auto import tqdm

        with (
            ThreadPoolExecutor(self.workers) as pool,
            tqdm(desc=NAME, total=len(manifest), unit="row", delay=2, disable=not progress) as bar,
        ):
            for numbers in row_blocks(range(len(manifest))):
                found: Vectors = {}
                rows = [manifest[number] for number in numbers]
                for number, result in zip(numbers, pool.map(_statistics, rows), strict=True):
                    found[number] = result
                    bar.update()
                yield found


def _statistics(row: Row) -> np.ndarray | AudioError:
    """Return means and standard deviations of MFCCs and of their differences, float32 `(80,)`."""
    import librosa

    try:
        parts = audio.stream(row.path, target_sr=_RATE, resampler="soxr_hq", offset=row.start, duration=row.duration)
        y = np.concatenate(list(parts))
    except AudioError as error:
        return error
    y = np.pad(y, (0, max(0, _N_FFT - len(y))))
    mfcc = librosa.feature.mfcc(y=y, sr=_RATE, n_mfcc=_COEFFICIENTS, n_fft=_N_FFT)
    # The default mode needs at least _WIDTH frames.
    mode = "interp" if mfcc.shape[1] >= _WIDTH else "nearest"
    delta = librosa.feature.delta(mfcc, width=_WIDTH, mode=mode)
    return np.concatenate([mfcc.mean(1), mfcc.std(1), delta.mean(1), delta.std(1)]).astype("float32")
