"""Embeddings of labelled sounds, kept on disk: what probing and the first stage of fine-tuning learn from.

Conventions: an embedding is what enters a tagger's classifier, averaged over the windows of a row: float32
`(features,)`, as `Tagger.embed` gives it. A row is known by the sha256 of its file's content, its start and its
duration, so renamed and copied files cost nothing.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..datasets.batches import EvaluationWindows, TimedBatches
from ..datasets.features import FeatureCache
from ..datasets.manifest import Manifest
from ..errors import AudioError, CacheError
from ..models.keras_runtime import KerasRuntime
from ..models.registry import DEFAULT_MODEL, model_info
from ..utils.files import write_atomically

if TYPE_CHECKING:
    import keras

    from ..datasets import Row
    from ..tagging.network_tagger import NetworkTagger

_LAYOUT = 1  # part of the key: raise it when what is kept, or how, changes
_BLOCK = 64  # rows whose vectors are written together: what is lost when the process is killed
_BATCH = 8  # windows per call, as in `tagger_evaluation`

# Numbers of rows -> vector, or what is wrong with the sound.
Vectors = dict[int, np.ndarray | AudioError]


# === Embeddings ===


class EmbeddingCache:
    """Embeddings of one tagger on disk: each is computed once, from log-mels that are cached too.

    Log-mels are those of `FeatureCache(folder, tagger.spec)`, so sound is decoded once for all taggers of a front end
    that share a folder. Embeddings differ from those of `Tagger.embed` by what float16 rounds, and at the edges of rows
    that are a part of a file, where frames see the sound beside it. They are keyed by front end, window policy, layers
    and the values of all weights before the head, as they are when `get_many` is called: a network that was trained on
    gets embeddings of its own, one with only a new head does not.

    Args:
        folder: made when needed; several processes may use it at once.
        tagger: whose embeddings.
        workers: sounds decoded at once.

    Attributes:
        width: features of an embedding.
        features: the `FeatureCache`.

    Raises:
        SpecError: the network has no layer named `head`, or what enters it is no vector.

    Example:
        >>> import tempfile, keras_musictag as kmt
        >>> from keras_musictag.datasets import Row
        >>> rows = [Row(path=kmt.demo_clip(), start=start, duration=4) for start in (0, 4, 8)]
        >>> embeddings, failures = EmbeddingCache(tempfile.mkdtemp(), kmt.load("tiny")).get_many(Manifest(rows))
        >>> embeddings.shape, failures
        ((3, 16), {})
    """

    def __init__(self, folder: str | os.PathLike[str], tagger: NetworkTagger, *, workers: int = 2) -> None:
        """Nothing is read or written yet."""
        import keras

        self.tagger, self.workers = tagger, workers
        self.features = FeatureCache(folder, tagger.spec)
        self._folder = Path(folder)
        vector = tagger._embedding
        self.width = int(vector.shape[1])
        self._network: keras.Model = keras.Model(tagger.core.inputs, vector)

    def get_many(self, manifest: Manifest, *, progress: bool = False) -> tuple[np.ndarray, dict[int, AudioError]]:
        """The embeddings of all rows, computed where they are not there.

        Args:
            manifest: rows; `start` and `duration` count, tags do not.
            progress: show bars on standard error.

        Returns:
            float32 `(rows, features)`, NaN in rows that cannot be used; and number of the row -> error for those.

        Raises:
            CacheError: the folder cannot be written.
        """
        compute = functools.partial(self._compute, progress=progress)
        return kept_vectors(
            manifest, self._folder, self._digest(), self.width, compute, self.workers, progress=progress
        )

    def _digest(self) -> str:
        """16 hexadecimal digits that stand for everything that embeddings depend on, but for the sound."""
        from keras import ops

        spec = self.tagger.spec
        about = {
            "layout": _LAYOUT,
            "front end": self.features.digest,
            "top_db": spec.mel.top_db,
            "window": dataclasses.asdict(spec.window),
            "architecture": spec.architecture,
            "config": dict(spec.config),
            # What taps there are, and whatever else was changed since it was built; inputs may have random names.
            "layers": [(type(layer).__name__, layer.name) for layer in self._network.layers[1:]],
        }
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
        for variable in self._network.weights:
            values = np.asarray(ops.convert_to_numpy(variable), "float32", order="C")
            digest.update(repr(values.shape).encode() + values.tobytes())
        return digest.hexdigest()[:16]

    @functools.cached_property
    def _run(self) -> KerasRuntime:
        return KerasRuntime(self._network)

    def _compute(self, manifest: Manifest, progress: bool) -> Iterator[Vectors]:
        from tqdm.auto import tqdm

        bad = dict(self.features.fill([row.path for row in manifest], self.workers, progress))
        for error in bad.values():
            if not isinstance(error, AudioError):
                raise error
        bar = tqdm(desc=self.tagger.spec.name, total=len(manifest), unit="row", delay=2, disable=not progress)
        with bar:
            for numbers in blocks(range(len(manifest))):
                found: Vectors = {}
                for number in numbers:
                    vector = self._unless_cached(manifest[number], bad)
                    if vector is not None:
                        found[number] = vector
                rest = [number for number in numbers if number not in found]
                if rest:
                    found |= zip(rest, self._from_cache([manifest[number] for number in rest]), strict=True)
                yield found
                bar.update(len(numbers))

    def _unless_cached(self, row: Row, bad: dict[Path, Exception]) -> np.ndarray | AudioError | None:
        """`None` if there are log-mels of a row; else its embedding, if its part of the file is fine, or its fault."""
        error = bad.get(row.path)
        try:
            if error is None:
                EvaluationWindows(Manifest((row,)), self.tagger.spec, self.features)
                return None
            if isinstance(error, AudioError) and not row.start and row.duration is None:
                return error
        except AudioError:  # it begins beyond the end of its file; the tagger says it better
            pass
        try:
            return self.tagger.embed(row.path, offset=row.start, duration=row.duration)
        except AudioError as fault:
            return fault

    def _from_cache(self, rows: Sequence[Row]) -> np.ndarray:
        """Embeddings `(rows, features)` of rows that have log-mels."""
        windows = EvaluationWindows(Manifest(tuple(rows)), self.tagger.spec, self.features, batch_size=_BATCH)
        outputs = [self._run.predict(x) for x, _ in TimedBatches(windows, workers=1)]
        return windows.mean_per_row(np.concatenate(outputs))


# === Vectors on disk ===


def kept_vectors(
    manifest: Manifest,
    folder: Path,
    kind: str,
    width: int,
    compute: Callable[[Manifest], Iterator[Vectors]],
    workers: int,
    *,
    progress: bool,
) -> tuple[np.ndarray, dict[int, AudioError]]:
    """One vector per row: read from a folder, and computed and written there where it is missing.

    `<folder>/embeddings/<kind>` holds `.npz` files that are never changed, each with up to 64 keys and vectors.

    Args:
        manifest: rows.
        folder: of the cache.
        kind: stands for everything that vectors depend on, but for the sound.
        width: length of a vector.
        compute: gives vectors of the rows it is asked for, block by block, and errors for rows that have none.
        workers: files read at once.
        progress: show a bar on standard error.

    Returns:
        As `EmbeddingCache.get_many`.

    Raises:
        CacheError: the folder cannot be written.
    """
    failures: dict[int, AudioError] = {}
    rows_of: dict[str, list[int]] = {}  # rows with the same sound are computed once
    for number, content in enumerate(contents(manifest, folder, workers, progress=progress)):
        row = manifest[number]
        if isinstance(content, AudioError):
            failures[number] = content
        else:
            key = json.dumps([content, float(row.start), None if row.duration is None else float(row.duration)])
            rows_of.setdefault(key, []).append(number)
    folder = folder / "embeddings" / kind
    vectors = np.full((len(manifest), width), np.nan, "float32")
    known = _read(folder, width)
    for key in rows_of.keys() & known.keys():
        vectors[rows_of[key]] = known[key]
    missing = [key for key in rows_of if key not in known]
    if missing:
        for block in compute(Manifest(tuple(manifest[rows_of[key][0]] for key in missing))):
            new = {}
            for number, result in block.items():
                if isinstance(result, AudioError):
                    failures |= dict.fromkeys(rows_of[missing[number]], result)
                else:
                    new[missing[number]] = vectors[rows_of[missing[number]]] = result
            _write(folder, new)
    return vectors, dict(sorted(failures.items()))


def contents(manifest: Manifest, folder: Path, workers: int, *, progress: bool = False) -> list[str | AudioError]:
    """sha256 of the file of every row, or why it cannot be read.

    Args:
        manifest: rows.
        folder: of a cache, whose index remembers contents by path, size and time of change.
        workers: files read at once.
        progress: show a bar on standard error.

    Returns:
        One per row.

    Raises:
        CacheError: the index cannot be written.
    """
    from tqdm.auto import tqdm

    index = FeatureCache(folder, model_info(DEFAULT_MODEL))  # one for all front ends

    def content(path: Path) -> str | AudioError:
        try:
            return index._sha_of(path)
        except AudioError as error:
            return error

    paths = list(dict.fromkeys(row.path for row in manifest))
    with ThreadPoolExecutor(workers) as pool:
        found = pool.map(content, paths)
        bar = tqdm(found, desc="reading", total=len(paths), unit="file", delay=2, disable=not progress)
        by_path = dict(zip(paths, bar, strict=True))
    return [by_path[row.path] for row in manifest]


def blocks(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    """Parts of up to 64, in order."""
    for first in range(0, len(numbers), _BLOCK):
        yield numbers[first : first + _BLOCK]


def _read(folder: Path, width: int) -> dict[str, np.ndarray]:
    """All vectors of a folder by key; damaged files count as missing."""
    known: dict[str, np.ndarray] = {}
    for path in sorted(folder.glob("*.npz")):
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
                keys, vectors = file["keys"].tolist(), file["vectors"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            continue
        if vectors.shape == (len(keys), width) and vectors.dtype == np.float32:
            known |= zip(keys, vectors, strict=True)
    return known


def _write(folder: Path, vectors: dict[str, np.ndarray]) -> None:
    """Add a file, named by its keys: processes that compute the same vectors write the same file."""
    if not vectors:
        return
    keys = sorted(vectors)
    content = io.BytesIO()
    np.savez(content, keys=np.array(keys), vectors=np.stack([vectors[key] for key in keys]).astype("float32"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CacheError(f"{folder} cannot be made: {error}.") from error
    name = hashlib.sha256("\n".join(keys).encode()).hexdigest()[:32]
    write_atomically(folder / f"{name}.npz", content.getvalue())
