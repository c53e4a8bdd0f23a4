"""PyTorch weight files (`.pth`, `.pt`) as NumPy arrays, without PyTorch and without running anything.

Two formats exist. The old one is five pickles in a row (magic number, version, machine, objects, keys of the storages),
then the storages, each after its length. The one since PyTorch 1.6 is an uncompressed zip archive of `data.pkl` and a
file per storage. What the pickles may do is in `pytorch_pickle.py`.
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
_PROTOCOL = 1001  # version of the old format; there was no other
_ZIP = b"PK\x03\x04"  # first bytes of the new one
_DEEPEST = 8  # dicts within dicts

_Bytes = Callable[[Storage], bytes | memoryview]


def read_pytorch(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a state dict.

    Args:
        path: file written by `torch.save`, in the old or the zip format.

    Returns:
        Read-only arrays by name; dicts within dicts are joined by `/`.

    Raises:
        CorruptWeightsError: it cannot be read, is damaged, or holds something else than tensors of numbers.
    """
    try:
        content = path.read_bytes()
        objects, storage_bytes = (_open_zip if content.startswith(_ZIP) else _open_old)(content)
        return _arrays(objects, storage_bytes, len(content))
    except (OSError, RefusedError, zipfile.BadZipFile, RuntimeError, LookupError, ValueError, EOFError) as error:
        # zipfile raises several of them; RuntimeError is RecursionError, too
        raise CorruptWeightsError(
            f"{path} cannot be read as PyTorch weights: {error}. Nothing in it was run. Get it again."
        ) from error


# === The two formats ===


def _open_old(content: bytes) -> tuple[Any, _Bytes]:
    stream = io.BytesIO(content)
    if unpickle(stream) != _MAGIC or unpickle(stream) != _PROTOCOL:
        raise RefusedError("it does not begin as such a file does")
    machine = unpickle(stream)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise RefusedError("it was written on a big-endian machine")
    declared: dict[str, Storage] = {}
    objects = unpickle(stream, declared)
    keys = unpickle(stream)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or sorted(keys) != sorted(declared):
        raise RefusedError("the list of its storages is not the one that its tensors need")
    view = memoryview(content)
    position = stream.tell()
    found: dict[str, memoryview] = {}
    for key in keys:
        begin = position + 8  # after the length
        position = begin + declared[key].count * declared[key].dtype.itemsize
        length = int.from_bytes(view[begin - 8 : begin], "little")
        if length != declared[key].count or position > len(content):
            raise RefusedError(f"the storage {key[:200]!r} does not have the {declared[key].count:,} numbers declared")
        found[key] = view[begin:position]
    if position != len(content):
        raise RefusedError(f"{len(content) - position:,} bytes follow its last storage")
    return objects, lambda storage: found[storage.key]


def _open_zip(content: bytes) -> tuple[Any, _Bytes]:
    archive = zipfile.ZipFile(io.BytesIO(content))
    members = {member.filename: member for member in archive.infolist()}
    if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
        raise RefusedError("its archive is compressed, which PyTorch does not do")
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
    """Arrays by name, of `most` bytes in all: many tensors may look at one storage."""
    tensors: dict[str, Tensor] = {}
    _flatten(objects, (), tensors, set())
    size = sum(math.prod(tensor.shape) * tensor.storage.dtype.itemsize for tensor in tensors.values())
    if size > most:
        raise RefusedError(f"its tensors have {size:,} bytes, the whole file only {most:,}")
    rows = {storage: np.frombuffer(storage_bytes(storage), storage.dtype) for storage in _storages_of(tensors)}
    return {name: _array(tensor, rows[tensor.storage]) for name, tensor in tensors.items()}


def _storages_of(tensors: dict[str, Tensor]) -> set[Storage]:
    return {tensor.storage for tensor in tensors.values()}


def _flatten(value: Any, keys: tuple[str, ...], tensors: dict[str, Tensor], seen: set[int]) -> None:
    """Collect the tensors of dicts within dicts."""
    name = "/".join(keys)
    if isinstance(value, Tensor) and keys and name not in tensors:
        tensors[name] = value
    elif isinstance(value, dict) and id(value) not in seen and len(keys) < _DEEPEST:
        seen.add(id(value))  # a dict that is met again may hold itself, or be one of a million times a million
        for key, inner in value.items():
            _flatten(inner, (*keys, key), tensors, seen)
    else:
        kind = "repeated or too deep" if isinstance(value, (Tensor, dict)) else f"a {type(value).__name__}"
        raise RefusedError(f"its entry {name[:200]!r} is {kind}, and weights are tensors of numbers and nothing else")


def _array(tensor: Tensor, row: np.ndarray) -> np.ndarray:
    strides = [stride * row.dtype.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(row[tensor.offset :], tensor.shape, strides, writeable=False)
