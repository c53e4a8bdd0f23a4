"""PyTorch weight files made without PyTorch, byte by byte, so that they can also be wrong."""

import io
import struct
import zipfile

import numpy as np

MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # these three as PyTorch writes them
PROTOCOL = b"\x80\x02M\xe9\x03."
KINDS = {"f2": "Half", "f4": "Float", "f8": "Double", "b1": "Bool", "u1": "Byte", "i1": "Char", "i2": "Short",
         "i4": "Int", "i8": "Long"}  # fmt: skip


def text(value):
    content = value.encode()
    return b"X" + struct.pack("<I", len(content)) + content


def number(value):
    content = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
    return b"\x8a" + bytes([len(content)]) + content


def numbers(values):
    return b"(" + b"".join(number(int(value)) for value in values) + b"t"


def storage(key, kind, count):
    return (
        b"(" + text("storage") + f"ctorch\n{kind}Storage\n".encode() + text(key) + text("cpu") + number(count) + b"tQ"
    )


def tensor(reference, shape, strides, offset=0):
    """A call of `_rebuild_tensor_v2` as PyTorch writes it."""
    hooks = b"ccollections\nOrderedDict\n)R"
    rest = number(offset) + numbers(shape) + numbers(strides) + b"\x89" + hooks
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + reference + rest + b"tR"


def dictionary(items):
    """An OrderedDict of texts to whatever their bytes push."""
    return b"ccollections\nOrderedDict\n)R(" + b"".join(text(name) + value for name, value in items) + b"u"


def program(body, protocol=b"\x80\x02"):
    return protocol + body + b"."


def state_dict(arrays):
    """The pickle of a state dict, and its storages by key."""
    items, storages = [], {}
    for index, (name, array) in enumerate(arrays.items()):
        array = np.asarray(array)
        key = str(index)
        storages[key] = np.ascontiguousarray(array)
        strides = [stride // array.itemsize for stride in storages[key].strides] if array.ndim else []
        reference = storage(key, KINDS[array.dtype.str[1:]], array.size)
        items.append((name, tensor(reference, array.shape, strides)))
    return program(dictionary(items)), storages


def old_file(objects, storages, keys=None, machine=None):
    """The old format: five pickles, then the storages."""
    machine = machine or program(b"}(" + text("little_endian") + b"\x88u")
    names = program(b"](" + b"".join(text(key) for key in (storages if keys is None else keys)) + b"e")
    data = b"".join(struct.pack("<q", array.size) + array.tobytes() for array in storages.values())
    return MAGIC + PROTOCOL + machine + objects + names + data


def zip_file(objects, storages, root="archive/", compression=zipfile.ZIP_STORED, extra=()):
    """The zip format."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        archive.writestr(f"{root}data.pkl", objects)
        archive.writestr(f"{root}byteorder", "little")
        for key, array in storages.items():
            archive.writestr(f"{root}data/{key}", array.tobytes())
        archive.writestr(f"{root}version", "3\n")
        for name, value in extra:
            archive.writestr(name, value)
    return content.getvalue()
