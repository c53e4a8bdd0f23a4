"""Safe interpreter for the pickles of PyTorch files, which imports and calls nothing.

A pickle is a program for a stack machine that can call any function. This interpreter supports only the operations of a
state dict and three kinds of names: `collections.OrderedDict`, `torch._utils._rebuild_tensor_v2` and the storages of
NumPy's number types. Any other name is rejected. Memory is bounded by the length of the pickle.
"""

from __future__ import annotations

import dataclasses
import io
import math
import pickletools
import struct
from typing import Any

import numpy as np

_REBUILD = "torch._utils._rebuild_tensor_v2"
_ORDERED_DICT = "collections.OrderedDict"
_STORAGES = {
    f"torch.{name}Storage": np.dtype(dtype)
    for name, dtype in {
        "Half": "<f2", "Float": "<f4", "Double": "<f8", "Bool": "?", "Byte": "u1", "Char": "i1", "Short": "<i2",
        "Int": "<i4", "Long": "<i8",
    }.items()
}  # fmt: skip
_OPERATIONS = {operation.code.encode("latin-1"): operation.name for operation in pickletools.opcodes}
# Operation -> size in bytes of the number, or of the length of the text, that follows it.
_NUMBERS = {"BININT": 4, "BININT1": 1, "BININT2": 2, "BINPUT": 1, "LONG_BINPUT": 4, "BINGET": 1, "LONG_BINGET": 4,
            "PROTO": 1, "FRAME": 8}  # fmt: skip
_LENGTHS = {"LONG1": 1, "BINUNICODE": 4, "SHORT_BINUNICODE": 1}

_MOST_AXES = 32  # NumPy's limit before version 2
_LARGEST = 2**48  # numbers in a storage; larger than any file, and products fit into 64 bits
_LONGEST_NAME = 1000  # characters


class RefusedError(Exception):
    """The file is damaged or uses something that is not allowed; the message completes "cannot be read: ..."."""


@dataclasses.dataclass(frozen=True)
class Storage:
    """A one-dimensional array of numbers in the file."""

    key: str
    dtype: np.dtype[Any]
    count: int


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A view of a storage; offset and strides are in numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class _Name:
    """A name that the pickle imports."""

    full: str


def unpickle(stream: io.BytesIO, storages: dict[str, Storage] | None = None) -> Any:
    """Read the object of one pickle: dicts, lists, tuples, text, numbers and `Tensor`.

    Args:
        stream: read up to the end of the pickle.
        storages: filled with the storages that the pickle refers to, by key; if `None`, it must not refer to any.

    Raises:
        RefusedError: the pickle is damaged, or uses operations or names that no state dict needs.
    """
    machine = _Machine(storages)
    try:
        while (operation := _operation(stream)) != "STOP":
            machine.step(operation, _argument(operation, stream))
        (result,) = machine.stack
        return result
    except (LookupError, ValueError, EOFError) as error:
        raise RefusedError(f"its pickle is damaged ({error})") from error


def _operation(stream: io.BytesIO) -> str:
    """Read the name of the next operation."""
    code = _read(stream, 1)
    if code not in _OPERATIONS:
        raise ValueError(f"{code!r} is not an operation")
    return _OPERATIONS[code]


def _argument(operation: str, stream: io.BytesIO) -> int | float | str | None:
    """Read the argument of an operation: a number, or text after its length."""
    if operation in _NUMBERS:
        return int.from_bytes(_read(stream, _NUMBERS[operation]), "little", signed=operation == "BININT")
    if operation in _LENGTHS:
        content = _read(stream, int.from_bytes(_read(stream, _LENGTHS[operation]), "little"))
        return int.from_bytes(content, "little", signed=True) if operation == "LONG1" else content.decode("utf-8")
    if operation == "BINFLOAT":
        return float(struct.unpack(">d", _read(stream, 8))[0])
    if operation in ("GLOBAL", "INST"):
        return ".".join(stream.readline().decode("utf-8").removesuffix("\n") for _ in range(2))
    return None  # other operations with an argument are rejected by _Machine


def _read(stream: io.BytesIO, count: int) -> bytes:
    content = stream.read(count)
    if len(content) < count:
        raise EOFError("unexpected end")
    return content


class _Machine:
    def __init__(self, storages: dict[str, Storage] | None) -> None:
        self.stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._storages = storages

    def step(self, operation: str, argument: Any) -> None:
        """Execute one operation."""
        match operation:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                self._marks.append(len(self.stack))
            case "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = self.stack[-1]
            case "MEMOIZE":
                self._memo[len(self._memo)] = self.stack[-1]
            case "APPEND" | "APPENDS":
                values = self._pop(1 if operation == "APPEND" else None)
                self._top(list).extend(values)
            case "SETITEM" | "SETITEMS":
                values = self._pop(2 if operation == "SETITEM" else None)
                _set_items(self._top(dict), values)
            case "BUILD":  # attributes of a dict, e.g. `_metadata` of a state dict, are ignored
                self._pop(1)
                self._top(dict)
            case _:
                self.stack.append(self._value(operation, argument))

    def _value(self, operation: str, argument: Any) -> Any:
        """Return the value that an operation pushes onto the stack."""
        match operation:
            case "NONE":
                return None
            case "NEWTRUE" | "NEWFALSE":
                return operation == "NEWTRUE"
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINUNICODE":
                return argument
            case "EMPTY_DICT":
                return {}
            case "EMPTY_LIST":
                return []
            case "EMPTY_TUPLE":
                return ()
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                return tuple(self._pop(int(operation[-1])))
            case "TUPLE":
                return tuple(self._pop(None))
            case "BINGET" | "LONG_BINGET":
                return self._memo[argument]
            case "GLOBAL" | "INST":
                return _name(argument)
            case "STACK_GLOBAL":
                return _name(".".join(map(_text, self._pop(2))))
            case "REDUCE":
                return _call(*self._pop(2))
            case "BINPERSID":
                return _storage(self._pop(1)[0], self._storages)
        raise RefusedError(f"its pickle uses the operation {operation}, which no state dict needs")

    def _pop(self, count: int | None) -> list[Any]:
        """Pop `count` values from the stack, or all above the last mark."""
        if count is None:
            start = floor = self._marks.pop()
        else:
            floor = self._marks[-1] if self._marks else 0
            start = len(self.stack) - count
        if not floor <= start <= len(self.stack):
            raise ValueError("too few values on the stack")
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def _top(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise ValueError(f"expected a {kind.__name__} on the stack, got a {type(self.stack[-1]).__name__}")
        return self.stack[-1]


# Messages show only names and numbers: a nested list can be short in the file and endless in print.


def _set_items(target: dict[str, Any], values: list[Any]) -> None:
    for key, value in zip(values[::2], values[1::2], strict=True):
        if not isinstance(key, str) or len(key) > _LONGEST_NAME:
            raise ValueError(f"keys must be text of at most {_LONGEST_NAME} characters")
        target[key] = value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("imported names must be text")
    return value


def _name(full: str) -> _Name:
    if full not in (_REBUILD, _ORDERED_DICT) and full not in _STORAGES:
        raise RefusedError(f"its pickle imports {full[:200]!r}; only tensors of numbers are allowed")
    return _Name(full)


def _call(function: Any, arguments: Any) -> dict[str, Any] | Tensor:
    match function, arguments:
        case _Name(full=name), () if name == _ORDERED_DICT:
            return {}
        case _Name(full=name), (Storage() as storage, offset, tuple(shape), tuple(strides), *_) if name == _REBUILD:
            return _tensor(storage, offset, shape, strides)
    called = function.full if isinstance(function, _Name) else f"a {type(function).__name__}"
    raise RefusedError(f"its pickle calls {called} with invalid arguments")


def _tensor(storage: Storage, offset: Any, shape: tuple[Any, ...], strides: tuple[Any, ...]) -> Tensor:
    numbers = (offset, *shape, *strides)
    if not all(type(number) is int and 0 <= number < _LARGEST for number in numbers):
        raise RefusedError("a tensor has an invalid offset, shape or stride")
    if len(shape) != len(strides) or len(shape) > _MOST_AXES:
        raise RefusedError(
            f"a tensor has {len(shape)} axes and {len(strides)} strides; at most {_MOST_AXES} are allowed"
        )
    count = math.prod(shape)
    last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    if count > storage.count or (count and last >= storage.count):
        raise RefusedError(f"a tensor of shape {shape} exceeds the {storage.count:,} numbers of its storage")
    return Tensor(storage, offset, shape, strides)


def _storage(identity: Any, storages: dict[str, Storage] | None) -> Storage:
    if isinstance(identity, tuple) and len(identity) == 6 and identity[-1] is None:
        identity = identity[:-1]  # in the old format, the last item could describe a view of another storage
    match identity:
        case ("storage", _Name(full=name), str(key), str(), int(count)) if (
            name in _STORAGES and 0 <= count < _LARGEST and storages is not None
        ):
            storage = Storage(key, _STORAGES[name], count)
            if storages.setdefault(key, storage) != storage:
                raise RefusedError(f"the storage {key[:200]!r} is declared twice with different properties")
            return storage
    raise RefusedError("its pickle refers to an object that is not a storage of numbers")
