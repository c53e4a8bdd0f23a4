"""Large downloads go on where they broke off, and archives in parts unpack where they should and nowhere else."""

import hashlib
import io
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
from range_server import Fault, RangeServer

from keras_musictag.datasets import archives
from keras_musictag.datasets.manifest import DataError
from keras_musictag.errors import CacheError, DownloadError, OfflineError
from keras_musictag.utils import transfers

CONTENT = np.random.default_rng(0).bytes(700_000)  # several chunks
OTHER = np.random.default_rng(1).bytes(700_000)
NAME = "big.bin"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(transfers, "_PAUSE", 0.001)
    with RangeServer() as server:
        server.files[NAME] = CONTENT
        yield server


@pytest.fixture
def fetch(server, tmp_path):
    """Download the file; returns its bytes. Nothing else may be left in the folder."""

    def run(**options):
        path = tmp_path / "out" / NAME
        path.parent.mkdir(exist_ok=True)
        archives.fetch(f"{server.url}/{NAME}", path, **options)
        assert list(path.parent.iterdir()) == [path]
        return path.read_bytes()

    return run


def left(tmp_path):
    return {path.name: path.stat().st_size for path in (tmp_path / "out").iterdir()}


# === Downloads ===


@pytest.mark.parametrize("lengths", [True, False])
def test_a_download(server, fetch, lengths):
    server.lengths = lengths
    assert fetch(sha256=hashlib.sha256(CONTENT).hexdigest(), begins=(b"other", CONTENT[:5])) == CONTENT
    assert server.sent == [NAME]


@pytest.mark.parametrize("etag", ['"v1"', 'W/"v1"', None])
@pytest.mark.parametrize("date", ["Mon, 01 Jan 2024 00:00:00 GMT", None])
def test_a_dropped_connection_is_resumed(server, fetch, etag, date):
    server.etags[NAME], server.dates[NAME] = etag, date
    server.faults[NAME] = Fault(cut=300_000, times=2)
    assert fetch() == CONTENT
    step = 300_000 // transfers._CHUNK * transfers._CHUNK  # an incomplete chunk is lost
    assert step > 250_000 and server.sent == [NAME, f"{NAME} bytes={step}-", f"{NAME} bytes={2 * step}-"]
    assert server.statuses == [200, 206, 206]


def test_a_range_that_ends_early_without_saying_so(server, fetch, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / f"{NAME}.part").write_bytes(CONTENT[:1000])
    server.lengths = False
    server.faults[NAME] = Fault(cut=300_000)
    assert fetch() == CONTENT
    assert server.sent == [f"{NAME} bytes=1000-", f"{NAME} bytes=301000-"]


def test_a_later_run_resumes(server, fetch, tmp_path):
    server.etags[NAME] = '"v1"'
    server.faults[NAME] = Fault(cut=0, times=100)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / f"{NAME}.part").write_bytes(CONTENT[:123_456])
    (tmp_path / "out" / f"{NAME}.part.version").write_text('"v1"')
    with pytest.raises(
        DownloadError, match=r"could not be downloaded: .*123,456 bytes are kept in .*big.bin.part; check"
    ):
        fetch()
    assert len(server.sent) == 5  # attempts without a new byte
    server.faults.clear()
    assert fetch() == CONTENT
    assert server.sent[-1] == f"{NAME} bytes=123456-"


def test_a_part_that_was_complete_is_not_downloaded_again(server, fetch, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / f"{NAME}.part").write_bytes(CONTENT)
    assert fetch() == CONTENT
    assert server.sent == [f"{NAME} bytes=700000-"]


@pytest.mark.parametrize("case", ["changed", "weak etag", "too long", "no ranges", "other range"])
def test_a_part_that_does_not_fit_is_started_afresh(server, fetch, tmp_path, case):
    (tmp_path / "out").mkdir()
    part = tmp_path / "out" / f"{NAME}.part"
    part.write_bytes(OTHER[:1000] if case != "too long" else OTHER + b"more")
    if case == "changed":
        server.etags[NAME] = '"v2"'
        part.with_name(f"{part.name}.version").write_text('"v1"')
    elif case == "weak etag":
        server.etags[NAME], server.dates[NAME] = 'W/"v"', "Tue, 02 Jan 2024 00:00:00 GMT"
        part.with_name(f"{part.name}.version").write_text("Mon, 01 Jan 2024 00:00:00 GMT")
    elif case == "no ranges":
        server.ranges = False
    elif case == "other range":
        server.faults[NAME] = Fault(shift=10)
    assert fetch() == CONTENT


def test_a_server_without_ranges_that_always_breaks_off_is_given_up(server, fetch, tmp_path):
    server.ranges = False
    server.faults[NAME] = Fault(cut=300_000, times=1000)
    with pytest.raises(DownloadError, match=r"could not be downloaded: .* 29\d,\d\d\d bytes are kept"):
        fetch()
    assert len(server.sent) == 5  # the first brought something, the next four nothing new


@pytest.mark.parametrize(("status", "attempts"), [(404, 1), (403, 1), (429, 5), (503, 5)])
def test_a_server_that_refuses(server, fetch, tmp_path, status, attempts):
    server.faults[NAME] = Fault(status=status, times=100)
    with pytest.raises(DownloadError, match=rf"answered {status} [\w ]+\. 0 bytes are kept"):
        fetch()
    assert len(server.sent) == attempts and left(tmp_path) == {}


@pytest.mark.parametrize(
    ("fault", "options", "message"),
    [
        (Fault(html=True), {}, r"sent a web page instead of the file\. Open it in a browser"),
        (Fault(), {"sha256": "0" * 64}, r"\(700,000 bytes\) has the sha256 \w{64}, expected 0{64}\. Nothing was kept"),
        (Fault(), {"begins": (b"PK",)}, r"begins with b'.*', expected b'PK'\. Nothing was kept"),
    ],
)
def test_something_else_is_not_kept(server, fetch, tmp_path, fault, options, message):
    server.faults[NAME] = fault
    server.etags[NAME] = '"v1"'
    with pytest.raises(DataError, match=message):
        fetch(**options)
    assert left(tmp_path) == {}
    assert fetch() == CONTENT


def test_no_network_where_none_is_allowed(server, fetch, monkeypatch):
    monkeypatch.setenv("KERAS_MUSICTAG_OFFLINE", "1")
    with pytest.raises(OfflineError, match=r"big.bin is needed and offline mode is on\..*put it into"):
        fetch()
    assert server.requests == []


def test_a_disk_without_room(server, fetch, tmp_path, monkeypatch):
    usage = transfers.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(transfers.shutil, "disk_usage", lambda path: usage._replace(free=699_999))
    with pytest.raises(CacheError, match=r"has 699,999 bytes free and 700,000 are needed\. Make room"):
        fetch()
    assert left(tmp_path) == {}
    (tmp_path / "out" / f"{NAME}.part").mkdir()
    with pytest.raises(
        CacheError, match=r"big.bin.part cannot be written: .*Make room there, or choose another folder"
    ):
        fetch()


def test_the_size_of_a_remote_file(server):
    assert archives.remote_size(f"{server.url}/{NAME}") == 700_000
    server.lengths = False
    assert archives.remote_size(f"{server.url}/{NAME}") is None
    with pytest.raises(
        DownloadError, match=r"The size of .* could not be read: .* answered 404 Not Found\. Check the connection"
    ):
        archives.remote_size(f"{server.url}/none")


# === Archives ===


def zipped(members, method=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


@pytest.fixture
def parts(tmp_path):
    """Cut an archive into three parts; returns their paths."""

    def cut(data):
        paths = [tmp_path / f"zip.00{number}" for number in (1, 2, 3)]
        bounds = [0, len(data) // 3, len(data) // 3 + 7, len(data)]
        for path, start, end in zip(paths, bounds, bounds[1:], strict=False):
            path.write_bytes(data[start:end])
        return paths

    return cut


def test_parts_read_like_the_whole(parts):
    paths = parts(CONTENT)
    with io.BufferedReader(archives._Joined(paths)) as file:
        assert file.read() == CONTENT and file.read() == b""
        random = np.random.default_rng(0)
        for start, count in zip(random.integers(0, 700_000, 50), random.integers(0, 500_000, 50), strict=True):
            assert file.seek(start) == start
            assert file.read(count) == CONTENT[start : start + count]
        assert file.seek(-5, io.SEEK_END) == 699_995 and file.read() == CONTENT[-5:]
    with archives._Joined(paths) as raw, pytest.raises(OSError, match="negative position"):
        raw.seek(-1)


def test_what_is_there_in_its_right_size_is_not_unpacked_again(parts, tmp_path):
    members = {f"{letter}/{number}.mp3": OTHER[: 1000 + number] for letter in "ab" for number in range(5)}
    paths, out = parts(zipped({**members, "a/": b""})), tmp_path / "out"
    out.mkdir()
    assert archives.unzip(paths, out) == 10
    assert {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*.mp3")} == members
    untouched = (out / "a" / "1.mp3").stat().st_mtime_ns
    (out / "a" / "0.mp3").write_bytes(b"half")
    (out / "b" / "4.mp3").unlink()
    assert archives.unzip(paths, out) == 2
    assert {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*.mp3")} == members
    assert (out / "a" / "1.mp3").stat().st_mtime_ns == untouched


@pytest.mark.parametrize(
    "name", ["../evil.mp3", "a/../../evil.mp3", "/evil.mp3", "C:evil.mp3", "a\\..\\evil.mp3", "link"]
)
def test_no_name_leads_out_of_the_folder(parts, tmp_path, name):
    info = zipfile.ZipInfo(name)
    info.filename = name  # ZipInfo itself would tidy some of them
    if name == "link":
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
    out = tmp_path / "deep" / "out"
    out.mkdir(parents=True)
    with pytest.raises(DataError, match=r"outside of the folder\. This is not the published archive; nothing was"):
        archives.unzip(parts(zipped({"good.mp3": b"x", info: b"../.."})), out)
    assert list(Path(tmp_path, "deep").rglob("*")) == [out]


def test_a_damaged_archive_leaves_no_partial_file(parts, tmp_path):
    data = bytearray(zipped({"a.mp3": b"a" * 50_000, "b.mp3": OTHER[:50_000]}))
    data[-30_000] ^= 0xFF  # within b.mp3
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(
        DataError, match=r"zip.001, zip.002, zip.003 are not an intact zip archive: .*Delete .* and download ag"
    ):
        archives.unzip(parts(bytes(data)), out)
    assert [path.name for path in out.iterdir()] == ["a.mp3"]
    with pytest.raises(DataError, match=r"are not an intact zip archive: File is not a zip file"):
        archives.unzip(parts(CONTENT), out)
    with pytest.raises(DataError, match=r"are not an intact zip archive"):
        archives.unzip(parts(bytes(data))[:2], out)  # the last part is missing


def test_a_folder_that_cannot_be_written(parts, tmp_path, monkeypatch):
    paths, out = parts(zipped({"a/b.mp3": OTHER[:5000]})), tmp_path / "out"
    out.mkdir()
    (out / "a").touch()
    with pytest.raises(CacheError, match=r"out cannot be written: .*Make room there, or choose another folder"):
        archives.unzip(paths, out)
    usage = transfers.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(transfers.shutil, "disk_usage", lambda path: usage._replace(free=4999))
    with pytest.raises(CacheError, match=r"has 4,999 bytes free and 5,000 are needed"):
        archives.unzip(paths, out)
