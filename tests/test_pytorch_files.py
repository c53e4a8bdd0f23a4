"""PyTorch files are read without PyTorch, as it reads them, and nothing but tensors of numbers gets through."""

import os
import pickle
import random
import re
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from pytorch_writer import dictionary, number, old_file, program, state_dict, storage, tensor, text, zip_file

from keras_musictag.errors import CorruptWeightsError
from keras_musictag.models.pytorch_files import read_pytorch

DATA = Path(__file__).parents[2] / "shared" / "data" / "weights"
FORMATS = {"old": old_file, "zip": zip_file}
RNG = np.random.default_rng(0)
ARRAYS = {
    "layer.weight": RNG.normal(size=(3, 2, 4)).astype("float32"),
    "layer.bias": np.float32([1, -2]),
    "double": RNG.normal(size=5),
    "half": np.float16([0.5]),
    "count": np.array(1234567890123),
    "mask": np.array([True, False]),
    "empty": np.zeros((0, 3), "float32"),
    **{kind: np.array([[1, 2]], kind) for kind in ("uint8", "int8", "int16", "int32")},
}
ZEROS = np.zeros(6, "float32")


@pytest.fixture(params=FORMATS)
def write(request, tmp_path):
    """Write a file of either format; returns its path."""

    def write(objects, storages=(), **options):
        path = tmp_path / "model.pth"
        path.write_bytes(FORMATS[request.param](objects, dict(storages), **options))
        return path

    return write


def one_tensor(shape, strides, offset=0, kind="Float", count=6):
    return program(dictionary([("w", tensor(storage("0", kind, count), shape, strides, offset))]))


def refused(path, message):
    with pytest.raises(CorruptWeightsError, match=message) as caught:
        read_pytorch(path)
    assert str(caught.value).startswith(f"{path} cannot be read as PyTorch weights: ")
    assert str(caught.value).endswith("No code in it was executed. Get it again.")
    assert len(str(caught.value)) < 1000


# === What is read ===


def test_every_kind_of_number(write):
    found = read_pytorch(write(*state_dict(ARRAYS)))
    assert list(found) == list(ARRAYS)
    for name, array in found.items():
        assert (array.dtype, array.shape) == (ARRAYS[name].dtype, ARRAYS[name].shape)
        np.testing.assert_array_equal(array, ARRAYS[name])
        assert not array.flags.writeable


def test_views_of_one_storage(write):
    row = np.arange(6, dtype="float32")
    reference = storage("0", "Float", 6)
    views = [("a", tensor(reference, (2,), (1,), 1)), ("b", tensor(reference, (2, 2), (1, 2), 0))]
    found = read_pytorch(write(program(dictionary(views)), {"0": row}))
    assert found["a"].tolist() == [1, 2]
    assert found["b"].tolist() == [[0, 2], [1, 3]]  # transposed in memory


def test_dicts_within_dicts_are_joined(write):
    inner = dictionary([("w", tensor(storage("0", "Float", 6), (6,), (1,)))])
    assert list(read_pytorch(write(program(dictionary([("state_dict", inner)])), {"0": ZEROS}))) == ["state_dict/w"]


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}], ids=["zip", "old"])
def test_what_pytorch_writes_today(tmp_path, options):
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.GRU(3, 4, 2))
    state = {**module.state_dict(), "turned": torch.arange(6.0).reshape(2, 3).T, "half": torch.ones(2).half()}
    path = tmp_path / "model.pth"
    torch.save(state, path, **options)
    found = read_pytorch(path)
    assert list(found) == list(state)
    for name, array in found.items():
        np.testing.assert_array_equal(array, state[name].numpy(), err_msg=name)


def test_the_published_files():
    torch = pytest.importorskip("torch")
    paths = sorted([*DATA.glob("won/*.pth"), *DATA.glob("efficientat/*.pt")])
    if not paths:
        pytest.skip("needs ../shared/data")
    for path in paths:
        found = read_pytorch(path)
        state = torch.load(path, weights_only=True, map_location="cpu")
        assert list(found) == list(state)
        for name, array in found.items():
            expected = state[name].numpy()
            assert (array.dtype, array.shape) == (expected.dtype, expected.shape)
            np.testing.assert_array_equal(array, expected, err_msg=f"{path.name} {name}")


# === Code ===


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class HasState:
    """Pickles as an instance with attributes."""

    def __init__(self):
        self.x = 1


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_calls_are_refused_by_name_and_not_made(write, tmp_path, protocol):
    trace = tmp_path / "trace"
    for evil in (Calls(os.system, f"touch {trace}"), {"w": Calls(os.mkdir, str(trace))}):
        refused(write(pickle.dumps(evil, protocol)), r"its pickle (imports '(posix|nt)\.\w+'|uses the operation \w+,)")
    assert not trace.exists()


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b"cos\nsystem\n(" + text("echo") + b"tR", "os.system"),
        (b"(" + text("echo") + b"ios\nsystem\n", "os.system"),  # INST
        (b"\x8c\x02os\x8c\x06system\x93)R", "os.system"),  # STACK_GLOBAL
        (b"cbuiltins\neval\n(" + text("1") + b"tR", "builtins.eval"),
        (b"cbuiltins\ngetattr\n", "builtins.getattr"),
        (b"ccollections\nOrderedDict.__init__\n", "collections.OrderedDict.__init__"),
        (b"ccollections\ndefaultdict\n)R", "collections.defaultdict"),
        (b"ctorch._utils\n_rebuild_parameter\n", "torch._utils._rebuild_parameter"),
        (b"ctorch._utils\n_rebuild_tensor\n", "torch._utils._rebuild_tensor"),
        (b"ctorch\nload\n", "torch.load"),
        (b"ctorch\nBFloat16Storage\n", "torch.BFloat16Storage"),
        (b"c__torch__\nNet\n)\x81", "__torch__.Net"),  # TorchScript
    ],
)
def test_any_other_name_is_refused(write, body, name):
    refused(write(program(body)), rf"its pickle imports '{re.escape(name)}'; only tensors of numbers are allowed")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"ccollections\nOrderedDict\n)\x81", "uses the operation NEWOBJ, which no state dict needs"),
        (b"ccollections\nOrderedDict\n]]\x86]\x94R", "calls a tuple|calls collections.OrderedDict"),
        (b"ccollections\nOrderedDict\n](\x8c\x01aK\x01e\x85R", "calls collections.OrderedDict with invalid arguments"),
        (b"ctorch\nFloatStorage\nK\x01\x85R", "calls torch.FloatStorage with invalid arguments"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n)R", "calls torch._utils._rebuild_tensor_v2 with invalid arg"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n}(\x8c\x08__code__K\x01ub", "expected a dict on the stack, got a _Name"),
        (b"\x82\x01", "uses the operation EXT1"),
        (b"U\x01a", "uses the operation SHORT_BINSTRING"),
        (b"}2", "uses the operation DUP"),
        (b"P0\n", "uses the operation PERSID"),
        (text("module") + b"Q", "refers to an object that is not a storage of numbers"),
        (
            b"(" + text("module") + b"ccollections\nOrderedDict\n" + text("0") + text("cpu") + b"K\x01tQ",
            "is not a storage",
        ),
    ],
)
def test_what_else_a_pickle_can_do(write, body, message):
    refused(write(program(body)), message)


@pytest.mark.parametrize("place", range(5))
def test_no_pickle_of_the_old_format_may_have_code(tmp_path, place):
    content = old_file(*state_dict(ARRAYS))
    starts = [*[match.start() for match in re.finditer(rb"\x80\x02", content)][:5], len(content)]
    evil = program(b"cos\nsystem\n(" + text("echo") + b"tR")
    path = tmp_path / "model.pth"
    path.write_bytes(content[: starts[place]] + evil + content[starts[place + 1] :])
    refused(path, "imports 'os.system'")


# === Entries that are no tensors ===


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (b"K\x01", "a int"),
        (b"G?\xf0\x00\x00\x00\x00\x00\x00", "a float"),
        (b"N", "a NoneType"),
        (text("hello"), "a str"),
        (b"]", "a list"),
        (b")", "a tuple"),
        (b"ctorch\nFloatStorage\n", "a _Name"),
        (storage("0", "Float", 6), "a Storage"),
    ],
)
def test_entries_that_are_no_tensors(write, value, kind):
    objects = program(dictionary([("layer", dictionary([("epoch", value)]))]))
    refused(
        write(objects, {"0": ZEROS} if kind == "a Storage" else {}), rf"its entry 'layer/epoch' is {kind}; only ten"
    )


def test_a_file_that_is_one_tensor(write):
    refused(
        write(program(tensor(storage("0", "Float", 6), (6,), (1,))), {"0": ZEROS}), "its entry '' is repeated or nes"
    )


def test_dicts_that_hold_themselves_or_each_other_a_million_times(write):
    refused(write(program(b"}q\x00" + text("again") + b"h\x00s")), "its entry 'again' is repeated or nested too deeply")
    doubled = b"}" + text("0") + b"}q\x00s"
    for index in range(1, 7):
        before = b"h" + bytes([index - 1])
        doubled += text(str(index)) + b"}q" + bytes([index]) + b"(" + text("a") + before + text("b") + before + b"us"
    refused(write(program(doubled)), "is repeated or nested too deeply")
    deep = b"}" + (text("a") + b"}") * 9 + b"s" * 9
    refused(write(program(deep)), "is repeated or nested too deeply")


def test_names_must_be_short_texts(write):
    refused(write(program(b"}K\x01K\x02s")), "keys must be text of at most 1000 characters")
    refused(write(program(b"}" + text("a" * 1001) + b"K\x02s")), "keys must be text of at most 1000 characters")
    refused(write(program(b"}](K\x01eK\x02s")), "keys must be text")


# === Sizes ===


@pytest.mark.parametrize(
    ("shape", "strides", "offset", "message"),
    [
        ((7,), (1,), 0, r"a tensor of shape \(7,\) exceeds the 6 numbers of its storage"),
        ((6,), (1,), 1, "exceeds the 6 numbers"),
        ((2, 2), (5, 1), 0, "exceeds the 6 numbers"),
        ((2,), (1,), 5, "exceeds the 6 numbers"),
        ((2**40,), (0,), 0, "exceeds the 6 numbers"),  # one number, a million million times
        ((2**24, 2**24), (0, 0), 0, "exceeds the 6 numbers"),
        ((2**50,), (0,), 0, "invalid offset, shape or stride"),
        ((2,), (-1,), 3, "invalid offset, shape or stride"),
        ((2,), (1,), -1, "invalid offset, shape or stride"),
        ((-2, -3), (1, 1), 0, "invalid offset, shape or stride"),
        ((2,), (1, 1), 0, "has 1 axes and 2 strides"),
        ((1,) * 33, (1,) * 33, 0, "has 33 axes and 33 strides; at most 32 are allowed"),
    ],
)
def test_tensors_stay_within_their_storage(write, shape, strides, offset, message):
    refused(write(one_tensor(shape, strides, offset), {"0": ZEROS}), message)


@pytest.mark.parametrize(("kind", "count"), [("Float", 5), ("Float", 7), ("Float", 2**40), ("Double", 6), ("Byte", 6)])
def test_storages_are_as_long_as_they_declare(write, kind, count):
    refused(
        write(one_tensor((2,), (1,), 0, kind, count), {"0": ZEROS}),
        "the storage '0' does not have|bytes follow|damaged",
    )


@pytest.mark.parametrize("count", [-1, 2**60])
def test_impossible_storages(write, count):
    refused(write(one_tensor((0,), (1,), 0, "Float", count), {"0": ZEROS}), "refers to an object that is not a storage")


def test_a_storage_is_declared_in_one_way(write):
    pair = [("a", tensor(storage("0", "Float", 6), (6,), (1,))), ("b", tensor(storage("0", "Int", 6), (6,), (1,)))]
    refused(write(program(dictionary(pair)), {"0": ZEROS}), "the storage '0' is declared twice with different")


def test_a_thousand_tensors_of_one_storage_are_not_a_thousand_copies(write):
    """Importers may copy what they get; so views count in full."""
    row = np.zeros(10_000, "float32")
    reference = storage("0", "Float", row.size)
    views = [(str(index), tensor(reference, (row.size,), (1,))) for index in range(1000)]
    refused(write(program(dictionary(views)), {"0": row}), r"its tensors have 40,000,000 bytes, the whole file only ")


BOMBS = {
    "memo": b"}r\xff\xff\xff\x7f0",  # pickle would make room for two thousand million entries
    "text": b"X\xff\xff\xff\x7f",
    "long text": b"\x8d" + struct.pack("<Q", 2**60),
    "bytes": b"\x8e" + struct.pack("<Q", 2**60),
    "frame": b"\x95" + struct.pack("<Q", 2**60),
    "number": b"\x8b" + struct.pack("<i", 2**31 - 1),
    "digits": b"I" + b"9" * 100_000 + b"\n",
    "deep": b"(" * 100_000 + b"l" * 100_000,
    "deep tuples": b")" + b"\x85" * 100_000,
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_pickles_that_ask_for_memory(write, bomb):
    path = write(program(BOMBS[bomb]))
    tracemalloc.start()
    with pytest.raises(CorruptWeightsError, match="cannot be read as PyTorch weights"):
        read_pytorch(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30e6


# === Damage ===


def test_what_is_no_such_file(tmp_path):
    path = tmp_path / "model.pth"
    refused(path, "No such file")
    for content in (b"", b"PK", b"PK\x03\x04", b"<html>" * 100, b"\x80\x02.", program(number(7)), bytes(1000)):
        path.write_bytes(content)
        refused(path, "pickle|begin|zip")


@pytest.mark.parametrize("format", FORMATS)
def test_truncated_or_prolonged_anywhere(tmp_path, format):
    content = FORMATS[format](*state_dict(ARRAYS))
    path = tmp_path / "model.pth"
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        refused(path, "its pickle|the storage|zip|Bad")
    if format == "old":
        path.write_bytes(content + b"more")
        refused(path, "4 bytes follow its last storage")


@pytest.mark.parametrize("format", FORMATS)
def test_flipped_bytes_never_end_in_another_error(tmp_path, format):
    """Without the sha256 that is checked before, a byte may change a number; it must not change what can happen."""
    content = FORMATS[format](*state_dict(ARRAYS))
    path, rng = tmp_path / "model.pth", random.Random(0)
    for _ in range(1500):
        damaged = bytearray(content)
        for _ in range(rng.choice([1, 1, 1, 5])):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            found = read_pytorch(path)
        except CorruptWeightsError:
            continue
        assert sum(array.nbytes for array in found.values()) <= len(content)


def test_archives_that_are_not_pytorchs(tmp_path):
    objects, storages = state_dict(ARRAYS)
    path = tmp_path / "model.pt"
    path.write_bytes(zip_file(objects, storages, compression=zipfile.ZIP_DEFLATED))
    refused(path, "its archive is compressed, unlike those of PyTorch")
    path.write_bytes(zip_file(objects, storages, extra=[("other/data.pkl", objects)]))
    refused(path, "its archive has 2 files called data.pkl, expected 1")
    path.write_bytes(zip_file(objects, {**storages, "0": ZEROS}))
    refused(path, "the storage '0' does not have the 24 numbers declared")
    content = bytearray(zip_file(objects, storages))
    content[content.index(ARRAYS["layer.weight"].tobytes())] ^= 1
    path.write_bytes(content)
    refused(path, "Bad CRC-32")
    path.write_bytes(zip_file(objects, storages).replace(b"little", b"big123"))
    refused(path, "Bad CRC-32|big-endian")


def test_lists_of_storages_that_do_not_fit(tmp_path):
    objects, storages = state_dict(ARRAYS)
    path = tmp_path / "model.pth"
    for keys in (list(storages)[1:], [*storages, "99"], [*storages, "0"]):
        path.write_bytes(old_file(objects, storages, keys=keys))
        refused(path, "the list of its storages does not match its tensors")
    path.write_bytes(old_file(objects, storages, machine=program(b"}(" + text("little_endian") + b"\x89u")))
    refused(path, "it was written on a big-endian machine")
