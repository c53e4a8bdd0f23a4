"""The pickle of a PyTorch file, carried out on plain values: nothing is imported, nothing is called.

A pickle is a program for a stack machine that may call any function it names. Only the operations that a state dict
needs are known here, and three kinds of names: `collections.OrderedDict`, `torch._utils._rebuild_tensor_v2` and the
storages of NumPy's numbers. Any other is refused by name. Memory is bounded by the length of the pickle.
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
# Bytes of the number, or of the length of the text, that follows an operation.
_NUMBERS = {"BININT": 4, "BININT1": 1, "BININT2": 2, "BINPUT": 1, "LONG_BINPUT": 4, "BINGET": 1, "LONG_BINGET": 4,
            "PROTO": 1, "FRAME": 8}  # fmt: skip
_LENGTHS = {"LONG1": 1, "BINUNICODE": 4, "SHORT_BINUNICODE": 1}

_MOST_AXES = 32  # NumPy's limit before version 2
_LARGEST = 2**48  # numbers in a storage; far beyond any file, and products still fit into 64 bits
_LONGEST_NAME = 1000  # characters


class RefusedError(Exception):
    """What is wrong with the file."""


@dataclasses.dataclass(frozen=True)
class Storage:
    """A row of numbers somewhere in the file."""

    key: str
    dtype: np.dtype[Any]
    count: int


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A view of a storage; offset and strides count numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class _Name:
    """What the pickle asks to import."""

    full: str


def unpickle(stream: io.BytesIO, storages: dict[str, Storage] | None = None) -> Any:
    """The object that one pickle makes: of dicts, lists, tuples, text, numbers and `Tensor`.

    Args:
        stream: is read up to the end of the pickle.
        storages: is filled with the storages that it refers to, by key; without it none may be referred to.

    Raises:
        RefusedError: it is damaged, or needs something that no state dict needs.
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
    """Name of the next operation."""
    code = _read(stream, 1)
    if code not in _OPERATIONS:
        raise ValueError(f"{code!r} is no operation")
    return _OPERATIONS[code]


def _argument(operation: str, stream: io.BytesIO) -> int | float | str | None:
    """What follows an operation: a number, or text after its length."""
    if operation in _NUMBERS:
        return int.from_bytes(_read(stream, _NUMBERS[operation]), "little", signed=operation == "BININT")
    if operation in _LENGTHS:
        content = _read(stream, int.from_bytes(_read(stream, _LENGTHS[operation]), "little"))
        return int.from_bytes(content, "little", signed=True) if operation == "LONG1" else content.decode("utf-8")
    if operation == "BINFLOAT":
        return float(struct.unpack(">d", _read(stream, 8))[0])
    if operation in ("GLOBAL", "INST"):
        return ".".join(stream.readline().decode("utf-8").removesuffix("\n") for _ in range(2))
    return None  # of other operations that have one, none is known below


def _read(stream: io.BytesIO, count: int) -> bytes:
    content = stream.read(count)
    if len(content) < count:
        raise EOFError("it ends too early")
    return content


class _Machine:
    def __init__(self, storages: dict[str, Storage] | None) -> None:
        self.stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._storages = storages

    def step(self, operation: str, argument: Any) -> None:
        """Carry out one operation."""
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
            case "BUILD":  # attributes of a dict, as `_metadata` of a state dict: not weights
                self._pop(1)
                self._top(dict)
            case _:
                self.stack.append(self._value(operation, argument))

    def _value(self, operation: str, argument: Any) -> Any:
        """What an operation puts onto the stack."""
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
        """Take values off the stack: so many, or all above the last mark."""
        floor = self._marks.pop() if count is None else self._marks[-1] if self._marks else 0
        start = floor if count is None else len(self.stack) - count
        if not floor <= start <= len(self.stack):
            raise ValueError("it takes more values than there are")
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def _top(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise ValueError(f"a {type(self.stack[-1]).__name__} stands where a {kind.__name__} is needed")
        return self.stack[-1]


# Values in messages are names and numbers only: lists within lists can be short in the file and endless in print.


def _set_items(target: dict[str, Any], values: list[Any]) -> None:
    for key, value in zip(values[::2], values[1::2], strict=True):
        if not isinstance(key, str) or len(key) > _LONGEST_NAME:
            raise ValueError(f"keys must be text of at most {_LONGEST_NAME} characters")
        target[key] = value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a name to import must be text")
    return value


def _name(full: str) -> _Name:
    if full not in (_REBUILD, _ORDERED_DICT) and full not in _STORAGES:
        raise RefusedError(f"its pickle asks for {full[:200]!r}, and weights are tensors of numbers and nothing else")
    return _Name(full)


def _call(function: Any, arguments: Any) -> dict[str, Any] | Tensor:
    match function, arguments:
        case _Name(full=name), () if name == _ORDERED_DICT:
            return {}
        case _Name(full=name), (Storage() as storage, offset, tuple(shape), tuple(strides), *_) if name == _REBUILD:
            return _tensor(storage, offset, shape, strides)
    what = function.full if isinstance(function, _Name) else f"a {type(function).__name__}"
    raise RefusedError(f"its pickle calls {what} with arguments that no state dict has")


def _tensor(storage: Storage, offset: Any, shape: tuple[Any, ...], strides: tuple[Any, ...]) -> Tensor:
    numbers = (offset, *shape, *strides)
    if not all(type(number) is int and 0 <= number < _LARGEST for number in numbers):
        raise RefusedError("a tensor has an impossible offset, shape or stride")
    if len(shape) != len(strides) or len(shape) > _MOST_AXES:
        raise RefusedError(f"a tensor has {len(shape)} axes and {len(strides)} strides; at most {_MOST_AXES} are read")
    count = math.prod(shape)
    last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    if count > storage.count or (count and last >= storage.count):
        raise RefusedError(f"a tensor of shape {shape} reaches beyond the {storage.count:,} numbers of its storage")
    return Tensor(storage, offset, shape, strides)


def _storage(identity: Any, storages: dict[str, Storage] | None) -> Storage:
    if isinstance(identity, tuple) and len(identity) == 6 and identity[-1] is None:
        identity = identity[:-1]  # the old format could describe a view of another storage here
    match identity:
        case ("storage", _Name(full=name), str(key), str(), int(count)) if (
            name in _STORAGES and 0 <= count < _LARGEST and storages is not None
        ):
            storage = Storage(key, _STORAGES[name], count)
            if storages.setdefault(key, storage) != storage:
                raise RefusedError(f"the storage {key[:200]!r} is declared in two ways")
            return storage
    raise RefusedError("its pickle refers to something that is no storage of numbers")
