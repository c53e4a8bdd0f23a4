"""Cache of embeddings on disk, for probing and the first stage of fine-tuning.

Conventions: an embedding is the input of a tagger's classifier, averaged over the windows of a row: float32
`(features,)`, as `Tagger.embed` returns it. The key of a row is the sha256 of its file's content, its start and its
duration, so that renamed and copied files are not computed again.
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
from ..datasets.log_mel_cache import FeatureCache
from ..datasets.manifest import Manifest
from ..errors import AudioError, CacheError
from ..models.keras_runtime import KerasRuntime
from ..models.registry import DEFAULT_MODEL, model_info
from ..utils.files import write_atomically

if TYPE_CHECKING:
    import keras

    from ..datasets import Row
    from ..tagging.network_tagger import NetworkTagger

_LAYOUT = 1  # version of the content of the cache, part of the key
_BLOCK = 64  # rows whose vectors are written together and lost if the process is killed
_BATCH = 8  # windows per call, as in `evaluation.measuring`

# Number of a row -> vector, or why it cannot be computed.
Vectors = dict[int, np.ndarray | AudioError]


# === Embeddings ===


class EmbeddingCache:
    """Embeddings of one tagger on disk, each computed once, from log-mels that are cached too.

    Log-mels are those of `FeatureCache(folder, tagger.spec)`, so audio is decoded once for all taggers of a front end
    that share a folder. Embeddings differ from those of `Tagger.embed` by the rounding to float16, and at the edges of
    rows that are parts of a file, where frames include the audio beside it. Keys contain the front end, the window
    policy, the layers and the values of all weights before the head at the time of `get_many`: a network that was
    trained further gets new embeddings, one with only a new head does not.

    Args:
        folder: folder of the cache, made when needed; several processes may use it at once.
        tagger: tagger whose embeddings are cached.
        workers: number of files decoded at once.

    Attributes:
        width: number of features of an embedding.
        features: the `FeatureCache`.

    Raises:
        SpecError: the network has no layer named `head`, or the input of `head` is not a vector.

    Example:
        >>> import tempfile, keras_musictag as kmt
        >>> from keras_musictag.datasets import Row
        >>> rows = [Row(path=kmt.demo_clip(), start=start, duration=4) for start in (0, 4, 8)]
        >>> embeddings, failures = EmbeddingCache(tempfile.mkdtemp(), kmt.load("tiny")).get_many(Manifest(rows))
        >>> embeddings.shape, failures
        ((3, 16), {})
    """

    def __init__(self, folder: str | os.PathLike[str], tagger: NetworkTagger, *, workers: int = 2) -> None:
        """Prepare the cache without reading or writing files."""
        import keras

        self.tagger, self.workers = tagger, workers
        self.features = FeatureCache(folder, tagger.spec)
        self._folder = Path(folder)
        vector = tagger.embedding_tensor
        self.width = int(vector.shape[1])
        self._network: keras.Model = keras.Model(tagger.core.inputs, vector)

    def get_many(self, manifest: Manifest, *, progress: bool = False) -> tuple[np.ndarray, dict[int, AudioError]]:
        """Return the embeddings of all rows; computes those that are missing.

        Args:
            manifest: rows; tags are ignored.
            progress: show progress bars on standard error.

        Returns:
            float32 `(rows, features)`, NaN in rows that cannot be used; and a dict row number -> error for those.

        Raises:
            CacheError: the folder cannot be written.
        """
        compute = functools.partial(self._compute, progress=progress)
        return cached_vectors(
            manifest, self._folder, self._digest(), self.width, compute, self.workers, progress=progress
        )

    def _digest(self) -> str:
        """Return a digest of everything that embeddings depend on, except the audio."""
        from keras import ops

        spec = self.tagger.spec
        about = {
            "layout": _LAYOUT,
            "front end": self.features.digest,
            "top_db": spec.mel.top_db,
            "window": dataclasses.asdict(spec.window),
            "architecture": spec.architecture,
            "config": dict(spec.config),
            # Layers, with taps and other changes since the network was built; inputs may have random names.
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
            for numbers in row_blocks(range(len(manifest))):
                found: Vectors = {}
                for number in numbers:
                    vector = self._embed_directly(manifest[number], bad)
                    if vector is not None:
                        found[number] = vector
                rest = [number for number in numbers if number not in found]
                if rest:
                    found |= zip(rest, self._from_cache([manifest[number] for number in rest]), strict=True)
                yield found
                bar.update(len(numbers))

    def _embed_directly(self, row: Row, bad: dict[Path, Exception]) -> np.ndarray | AudioError | None:
        """Return `None` if a row has log-mels; else its embedding if its part of the file is valid, or the error."""
        error = bad.get(row.path)
        try:
            if error is None:
                EvaluationWindows(Manifest((row,)), self.tagger.spec, self.features)
                return None
            if isinstance(error, AudioError) and not row.start and row.duration is None:
                return error
        except AudioError:  # the row starts behind the end of its file; the tagger's message is clearer
            pass
        try:
            return self.tagger.embed(row.path, offset=row.start, duration=row.duration)
        except AudioError as embed_error:
            return embed_error

    def _from_cache(self, rows: Sequence[Row]) -> np.ndarray:
        """Return the embeddings `(rows, features)` of rows that have log-mels."""
        windows = EvaluationWindows(Manifest(tuple(rows)), self.tagger.spec, self.features, batch_size=_BATCH)
        outputs = [self._run.predict(x) for x, _ in TimedBatches(windows, workers=1)]
        return windows.mean_per_row(np.concatenate(outputs))


# === Vectors on disk ===


def cached_vectors(
    manifest: Manifest,
    folder: Path,
    kind: str,
    width: int,
    compute: Callable[[Manifest], Iterator[Vectors]],
    workers: int,
    *,
    progress: bool,
) -> tuple[np.ndarray, dict[int, AudioError]]:
    """Return one vector per row: read from a cache, or computed and written there.

    `<folder>/embeddings/<kind>` holds `.npz` files that are never changed, each with up to 64 keys and vectors.

    Args:
        manifest: rows.
        folder: folder of the cache.
        kind: digest of everything that vectors depend on, except the audio.
        width: length of a vector.
        compute: function that yields vectors, or errors, of the given rows, block by block.
        workers: number of files read at once.
        progress: show a progress bar on standard error.

    Returns:
        As `EmbeddingCache.get_many`.

    Raises:
        CacheError: the folder cannot be written.
    """
    failures: dict[int, AudioError] = {}
    rows_of: dict[str, list[int]] = {}  # rows with the same audio are computed once
    for number, content in enumerate(content_digests(manifest, folder, workers, progress=progress)):
        row = manifest[number]
        if isinstance(content, AudioError):
            failures[number] = content
        else:
            key = json.dumps([content, float(row.start), None if row.duration is None else float(row.duration)])
            rows_of.setdefault(key, []).append(number)
    folder = folder / "embeddings" / kind
    vectors = np.full((len(manifest), width), np.nan, "float32")
    known = _read_vectors(folder, width)
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
            _write_vectors(folder, new)
    return vectors, dict(sorted(failures.items()))


def content_digests(
    manifest: Manifest, folder: Path, workers: int, *, progress: bool = False
) -> list[str | AudioError]:
    """Return the sha256 of the file of every row, or the error if it cannot be read.

    Args:
        manifest: rows.
        folder: folder of a cache, whose index keeps digests by path, size and time of change.
        workers: number of files read at once.
        progress: show a progress bar on standard error.

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


def row_blocks(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    """Yield parts of up to 64 numbers, in order."""
    for first in range(0, len(numbers), _BLOCK):
        yield numbers[first : first + _BLOCK]


def _read_vectors(folder: Path, width: int) -> dict[str, np.ndarray]:
    """Read all vectors of a folder by key; skips damaged files."""
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


def _write_vectors(folder: Path, vectors: dict[str, np.ndarray]) -> None:
    """Write a file named after its keys, so that processes that compute the same vectors write the same file."""
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
