"""Reading of PyTorch weight files (`.pth`, `.pt`) as NumPy arrays, without PyTorch and without executing code.

There are two formats. The old one consists of five pickles (magic number, version, machine, objects, keys of the
storages) and the storages, each after its length. Since PyTorch 1.6, a file is an uncompressed zip archive of
`data.pkl` and a file per storage. `pytorch_pickle.py` interprets the pickles.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CorruptWeightsError
from .pytorch_pickle import RefusedError, Storage, Tensor, unpickle

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001  # the only version of the old format
_ZIP = b"PK\x03\x04"  # first bytes of the zip format
_MOST_LEVELS = 8  # of nested dicts

_Bytes = Callable[[Storage], bytes | memoryview]


def read_pytorch(path: Path) -> dict[str, np.ndarray]:
    """Read the tensors of a state dict.

    Args:
        path: file written by `torch.save`, in the old or the zip format.

    Returns:
        Read-only arrays by name; keys of nested dicts are joined by `/`.

    Raises:
        CorruptWeightsError: the file cannot be read, is damaged, or holds other objects than tensors.
    """
    try:
        content = path.read_bytes()
        open_format = _open_zip if content.startswith(_ZIP) else _open_old
        objects, storage_bytes = open_format(content)
        return _arrays(objects, storage_bytes, len(content))
    except (OSError, RefusedError, zipfile.BadZipFile, RuntimeError, LookupError, ValueError, EOFError) as error:
        # zipfile raises several of these; RuntimeError includes RecursionError
        raise CorruptWeightsError(
            f"{path} cannot be read as PyTorch weights: {error}. No code in it was executed. Get it again."
        ) from error


# === The two formats ===


def _open_old(content: bytes) -> tuple[Any, _Bytes]:
    stream = io.BytesIO(content)
    if unpickle(stream) != _MAGIC or unpickle(stream) != _PROTOCOL:
        raise RefusedError("it does not begin with the magic number and version of such a file")
    machine = unpickle(stream)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise RefusedError("it was written on a big-endian machine")
    declared: dict[str, Storage] = {}
    objects = unpickle(stream, declared)
    keys = unpickle(stream)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or sorted(keys) != sorted(declared):
        raise RefusedError("the list of its storages does not match its tensors")
    view = memoryview(content)
    position = stream.tell()
    found: dict[str, memoryview] = {}
    for key in keys:
        storage = declared[key]
        begin = position + 8  # after the length
        position = begin + storage.count * storage.dtype.itemsize
        length = int.from_bytes(view[begin - 8 : begin], "little")
        if length != storage.count or position > len(content):
            raise RefusedError(f"the storage {key[:200]!r} does not have the {storage.count:,} numbers declared")
        found[key] = view[begin:position]
    if position != len(content):
        raise RefusedError(f"{len(content) - position:,} bytes follow its last storage")
    return objects, lambda storage: found[storage.key]


def _open_zip(content: bytes) -> tuple[Any, _Bytes]:
    archive = zipfile.ZipFile(io.BytesIO(content))
    members = {member.filename: member for member in archive.infolist()}
    if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
        raise RefusedError("its archive is compressed, unlike those of PyTorch")
    if sum(member.file_size for member in archive.infolist()) > len(content):
        raise RefusedError("its archive declares more bytes than the file has")
    roots = [name.removesuffix("data.pkl") for name in members if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise RefusedError(f"its archive has {len(roots)} files called data.pkl, expected 1")
    (root,) = roots
    if f"{root}byteorder" in members and archive.read(f"{root}byteorder") != b"little":
        raise RefusedError("it was written on a big-endian machine")

    def read(storage: Storage) -> bytes:
        name = f"{root}data/{storage.key}"
        needed = storage.count * storage.dtype.itemsize
        if name not in members or members[name].file_size != needed:
            raise RefusedError(
                f"the storage {storage.key[:200]!r} does not have the {storage.count:,} numbers declared"
            )
        return archive.read(name)

    return unpickle(io.BytesIO(archive.read(f"{root}data.pkl")), {}), read


# === Tensors to arrays ===


def _arrays(objects: Any, storage_bytes: _Bytes, most: int) -> dict[str, np.ndarray]:
    """Return the arrays by name; together they may have `most` bytes, since tensors may share a storage."""
    tensors: dict[str, Tensor] = {}
    _flatten(objects, (), tensors, set())
    size = sum(math.prod(tensor.shape) * tensor.storage.dtype.itemsize for tensor in tensors.values())
    if size > most:
        raise RefusedError(f"its tensors have {size:,} bytes, the whole file only {most:,}")
    storages = {tensor.storage for tensor in tensors.values()}
    rows = {storage: np.frombuffer(storage_bytes(storage), storage.dtype) for storage in storages}
    return {name: _array(tensor, rows[tensor.storage]) for name, tensor in tensors.items()}


def _flatten(value: Any, keys: tuple[str, ...], tensors: dict[str, Tensor], seen: set[int]) -> None:
    """Collect the tensors of nested dicts."""
    name = "/".join(keys)
    if isinstance(value, Tensor) and keys and name not in tensors:
        tensors[name] = value
    elif isinstance(value, dict) and id(value) not in seen and len(keys) < _MOST_LEVELS:
        seen.add(id(value))  # a dict that occurs again could hold itself or multiply the entries
        for key, inner in value.items():
            _flatten(inner, (*keys, key), tensors, seen)
    else:
        kind = "repeated or nested too deeply" if isinstance(value, (Tensor, dict)) else f"a {type(value).__name__}"
        raise RefusedError(f"its entry {name[:200]!r} is {kind}; only tensors of numbers are allowed")


def _array(tensor: Tensor, row: np.ndarray) -> np.ndarray:
    strides = [stride * row.dtype.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(row[tensor.offset :], tensor.shape, strides, writeable=False)
