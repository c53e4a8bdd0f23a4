"""Cache log-mel spectrograms of whole tracks on disk, so that training does not decode audio repeatedly.

Conventions: a cached spectrogram is `(frames, mels)`, so a window of frames is one contiguous read. Frame `t` is
centred on second `t * hop_length / sr` of its file; the spectrogram equals that of `windows.cut` and
`LogMelSpectrogram`, up to the rounding to float16.

Tracks are padded once, also for models that centre each window (`spec.mel.center`). For these, the first and last
`n_fft / 2` samples of a cached window contain the neighbouring audio, where the model would pad. Tracks shorter than a
window are exact.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import os
import re
import struct
import threading
import time
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import keras
import numpy as np

from ..audio import reading as audio
from ..errors import AudioNotFoundError, CacheError
from ..models import windows
from ..models.front_end import identifying_fields
from ..models.keras_runtime import KerasRuntime
from ..models.keras_state import check_process, default_settings
from ..models.layers import LogMelSpectrogram
from ..models.mel import decibels_per_decade
from ..models.spec import ModelSpec, WindowSpec
from ..utils.files import replacing

_LAYOUT = 1  # part of the key; increase it when cached values or their layout change
_CHUNK = WindowSpec(frames=512, remainder="align", short="pad")  # frames computed at a time, 4 chunks per call
_HEADER_BYTES, _CRC_BYTES = 128, 4
_RACY_NS = 2_000_000_000  # 2 s, the coarsest file system clock (FAT); newer files could change without a new time
_SHA = re.compile("[0-9a-f]{64}")


# === Cache ===


class FeatureCache:
    """Log-mels of whole tracks on disk, computed once and read by memory map.

    A file `<folder>/<front end>/<sha256[:2]>/<sha256>.npy` holds a spectrogram `(frames, mels)`. The key is the content
    of the audio file and every number of the front end except `top_db`, which is relative to a window and applied when
    a window is read. Values are float16, rounded by at most 0.031 dB in the `"db"` scaling (down to -128 dB) and 0.002
    (0.02 dB) in `"log10"`; plain power and lower floors are float32. Files are written atomically, so several threads
    and processes may use a folder at once.

    Args:
        folder: folder of the cache, created when needed.
        spec: model spec; only its audio and mel settings are used.

    Example:
        >>> import tempfile, keras_musictag as kmt
        >>> cache = FeatureCache(tempfile.mkdtemp(), kmt.model_info("musicnn_mtt"))
        >>> cache.get(kmt.demo_clip()).shape[1]
        96
    """

    def __init__(self, folder: str | os.PathLike[str], spec: ModelSpec) -> None:
        """Store the settings; nothing is read or written yet."""
        self.spec = spec
        self.digest = front_end_digest(spec)
        self.folder = Path(folder) / self.digest
        self.dtype = np.dtype("<f2" if _fits_float16(spec) else "<f4")
        self._index_path = Path(folder) / "index.jsonl"
        self._index: dict[str, tuple[int, int, str]] | None = None
        self._runtimes: dict[bool, KerasRuntime] = {}  # by whether windows are centred one by one
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for another process, without the lock and the compiled front end."""
        return {**self.__dict__, "_lock": None, "_runtimes": {}, "_index": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore with a new lock."""
        self.__dict__.update(state, _lock=threading.RLock())

    def get(self, path: str | os.PathLike[str]) -> np.ndarray:
        """Return the spectrogram of an audio file; computes it if it is missing or damaged.

        Returns:
            read-only memory map `(frames, mels)`, float16 or float32, without `top_db`.

        Raises:
            AudioError: the audio cannot be used; as `audio.stream` and `windows.cut`.
            CacheError: the folder cannot be written.
        """
        return self._get(path, None)

    def short_window(self, path: str | os.PathLike[str], window: WindowSpec) -> np.ndarray:
        """Return the only window `(window.frames, mels)` of a track that is shorter, as `windows.cut` makes it."""
        return self._get(path, window)

    def fill(
        self, paths: Iterable[str | os.PathLike[str]], workers: int = 2, progress: bool = False, *, verify: bool = True
    ) -> list[tuple[Path, Exception]]:
        """Compute all missing spectrograms; files that cannot be used are skipped.

        Args:
            paths: audio files; duplicates are ignored.
            workers: number of files decoded at once.
            progress: show a progress bar.
            verify: verify the checksums of existing spectrograms, and compute them again if they differ.

        Returns:
            `(path, error)` for every file that cannot be used, in the order of `paths`.
        """
        from tqdm.auto import tqdm

        unique = list(dict.fromkeys(map(Path, paths)))
        with ThreadPoolExecutor(max(1, workers)) as pool:
            results = pool.map(functools.partial(self._fill_one, verify=verify), unique)
            errors = list(tqdm(results, total=len(unique), unit="file", disable=not progress))
        return [(path, error) for path, error in zip(unique, errors, strict=True) if error is not None]

    def _fill_one(self, path: Path, verify: bool) -> Exception | None:
        try:
            self._get(path, None, verify)
        except Exception as error:  # any error is reported for this file
            return error
        return None

    # --- Files ---

    def _get(self, path: str | os.PathLike[str], window: WindowSpec | None, verify: bool = False) -> np.ndarray:
        sha = self._sha_of(Path(path))
        suffix = "" if window is None else f".{window.frames}-{window.short}"
        file = self.folder / sha[:2] / f"{sha}{suffix}.npy"
        cached = self._open(file, verify)
        if cached is not None:
            return cached
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(file) as out:
                self._write(out, path, window)
                out.flush()
                os.fsync(out.fileno())  # else the file could be empty after a power failure
        except OSError as error:
            if isinstance(error, AudioNotFoundError):
                raise
            cached = self._open(file)  # on Windows, another process may have written and opened it
            if cached is None:
                raise CacheError(f"{file} cannot be written: {error}. Nothing was changed.") from error
            return cached
        cached = self._open(file)
        if cached is None:
            raise CacheError(f"{file} was written, but is damaged. Check the disk.")
        return cached

    def _header(self, frames: int) -> bytes:
        """Return a header of NumPy's format 1.0, always of the same length, as it is written last."""
        shape = (frames, self.spec.mel.n_mels)
        text = f"{{'descr': '{self.dtype.str}', 'fortran_order': False, 'shape': {shape}, }}"
        size = _HEADER_BYTES - 10
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", size) + text.ljust(size - 1).encode() + b"\n"

    def _open(self, file: Path, verify: bool = False) -> np.ndarray | None:
        """Return the memory map, `None` if the file is missing or damaged."""
        mels = self.spec.mel.n_mels
        try:
            with file.open("rb") as opened:
                header = opened.read(_HEADER_BYTES)
                size = os.fstat(opened.fileno()).st_size - _HEADER_BYTES - _CRC_BYTES
                frames, rest = divmod(size, mels * self.dtype.itemsize)
                if rest or frames < 1 or header != self._header(frames):
                    return None
                data = np.memmap(opened, self.dtype, "r", _HEADER_BYTES, (frames, mels))
                opened.seek(-_CRC_BYTES, os.SEEK_END)
                if verify and opened.read() != struct.pack("<I", zlib.crc32(data.data)):
                    return None
        except (OSError, ValueError):  # ValueError: the file was truncated while it was mapped
            return None
        return data

    def _write(self, out: BinaryIO, path: str | os.PathLike[str], window: WindowSpec | None) -> None:
        """Write header, frames and checksum, with a few chunks in memory at a time."""
        spec = self.spec if window is None else dataclasses.replace(self.spec, window=window)
        if window is None:
            spec = dataclasses.replace(spec, mel=dataclasses.replace(spec.mel, center=False), window=_CHUNK)
        samples = frames = crc = 0

        def counted() -> Iterator[np.ndarray]:
            nonlocal samples
            for block in audio.stream(os.fspath(path), target_sr=spec.audio.sr, resampler=spec.audio.resampler):
                samples += len(block)
                yield block

        out.write(bytes(_HEADER_BYTES))
        for batch in windows.cut(counted(), spec, batch_size=4, name=repr(os.fspath(path))):
            log_mels = self._log_mel(batch.samples, spec.mel.center).transpose(0, 2, 1)
            # A track shorter than a chunk is padded; its own frames are those of the track with padding at both ends.
            whole = spec.mel.frames(samples + 2 * (spec.mel.n_fft // 2)) if window is None else spec.window.frames
            for start, log_mel in zip(batch.starts.tolist(), log_mels, strict=True):
                # The last chunk ends with the track and overlaps the previous one.
                new = log_mel[frames - start : whole - start].astype(self.dtype).tobytes()
                out.write(new)
                crc = zlib.crc32(new, crc)
                frames = min(start + len(log_mel), whole)
        out.write(struct.pack("<I", crc))
        out.seek(0)
        out.write(self._header(frames))

    def _log_mel(self, samples: np.ndarray, center: bool) -> np.ndarray:
        """Compute float32 log-mels `(windows, mels, frames)` of `(windows, samples)`."""
        with self._lock:  # one call uses all cores; other threads decode meanwhile
            if center not in self._runtimes:
                mel = dataclasses.replace(self.spec.mel, top_db=None, center=center)
                check_process()
                with default_settings():
                    waveform = keras.Input((None,))
                    layer = LogMelSpectrogram.from_spec(self.spec.audio, mel)
                    model = keras.Model(waveform, layer(waveform))
                self._runtimes[center] = KerasRuntime(model)
            return self._runtimes[center].predict(samples)

    # --- Index of checksums by path ---

    def _sha_of(self, path: Path) -> str:
        """Return the sha256 of a file, from the index if size and modification time are unchanged."""
        name = os.path.abspath(path)
        try:
            status = os.stat(name)
            state = (status.st_size, status.st_mtime_ns)
            with self._lock:
                if self._index is None:
                    self._index = _read_index(self._index_path)
                known = self._index.get(name)
            if known is not None and known[:2] == state:
                return known[2]
            with open(name, "rb") as file:
                sha = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise AudioNotFoundError(
                f"{os.fspath(path)!r} cannot be read ({error.strerror or error}). Check the path and the permissions."
            ) from error
        if time.time_ns() - state[1] > _RACY_NS:
            self._remember(name, (*state, sha))
        return sha

    def _remember(self, name: str, entry: tuple[int, int, str]) -> None:
        """Append a line in one write, so that processes can write at once and a truncated line affects no other."""
        line = f"\n{json.dumps([name, *entry])}\n".encode()
        try:
            self._index_path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._index_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                os.write(descriptor, line)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise CacheError(f"{self._index_path} cannot be written: {error}.") from error
        with self._lock:
            if self._index is not None:
                self._index[name] = entry


def front_end_digest(spec: ModelSpec) -> str:
    """Return a checksum, 16 hexadecimal digits, of all numbers that cached log-mels depend on."""
    parts = identifying_fields(spec.audio, spec.mel, spec.window)
    mel = {name: value for name, value in parts["mel"].items() if name != "top_db"}
    numbers = {"layout": _LAYOUT, "audio": parts["audio"], "mel": mel}
    return hashlib.sha256(json.dumps(numbers, sort_keys=True).encode()).hexdigest()[:16]


def _fits_float16(spec: ModelSpec) -> bool:
    """Return whether values are within +-128, where float16 numbers are at most 1/16 apart."""
    if spec.mel.scaling in ("db", "amplitude_to_db"):
        floor = decibels_per_decade(spec.mel) * math.log10(spec.mel.amin / max(spec.mel.amin, spec.mel.ref))
        return floor >= -128
    return spec.mel.scaling in ("log10", "log")


def _read_index(path: Path) -> dict[str, tuple[int, int, str]]:
    index: dict[str, tuple[int, int, str]] = {}
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return index
    for line in lines:
        try:
            name, size, changed, sha = json.loads(line)
        except (ValueError, TypeError):  # truncated or empty
            continue
        if isinstance(name, str) and isinstance(sha, str) and _SHA.fullmatch(sha):
            index[name] = (size, changed, sha)
    return index
