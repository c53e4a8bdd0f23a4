"""Getting weight files by URL. Mirrors and files beside the spec are in test_mirror.py, the Hub is in test_hub.py.

Servers are real and on the loopback; what is tested is the bytes that arrive, what is left on the disk, how many
requests were made, and which exception says what.
"""

import errno
import hashlib
import os
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hub_server import Fault, Repo, point_client_at
from range_server import Fault as RangeFault
from range_server import RangeServer
from weight_files import CONTENT, NAME, OTHER, URL, answer_https, files_in, rot, spec_of, wait_until

from keras_musictag.errors import CacheError, CorruptWeightsError, DownloadError, OfflineError, SpecError
from keras_musictag.models import fetching as download
from keras_musictag.utils import files, transfers

FETCH = """
import sys
from keras_musictag import WeightsSource, model_info
from keras_musictag.models import fetching as download
import dataclasses
uri, sha256 = sys.argv[1:]
spec = dataclasses.replace(model_info("tiny"), weights=WeightsSource(uri=uri, sha256=sha256))
print(download.fetch_weights(spec))
"""


def start_fetching():
    return subprocess.Popen(
        [sys.executable, "-c", FETCH, "https://weights.example/model.h5", hashlib.sha256(CONTENT).hexdigest()],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


# === By URL ===


def test_a_download_is_verified_and_made_once(https, cache):
    path = download.fetch_weights(spec_of())
    assert path.read_bytes() == CONTENT
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert files_in(cache) == [f"weights/{digest}/{NAME}"]
    assert https.requests == [f"GET /files/{NAME}"]
    files._sha256.cache_clear()  # as in another process
    assert download.fetch_weights(spec_of()) == path
    assert len(https.requests) == 1


def test_two_files_of_one_name_do_not_meet_in_the_cache(https):
    first = download.fetch_weights(spec_of())
    https.files[NAME] = OTHER
    second = download.fetch_weights(spec_of(content=OTHER))
    assert (first.read_bytes(), second.read_bytes()) == (CONTENT, OTHER)


def test_the_file_is_readable_for_all_whom_the_umask_allows(https):
    before = os.umask(0o027)
    try:
        path = download.fetch_weights(spec_of())
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        (Fault(status=404), DownloadError, r"could not be downloaded: weights\.example answered 404 Not Found\.\n"),
        (Fault(status=500), DownloadError, r"could not be downloaded: weights\.example answered 500 Internal Server"),
        (Fault(status=403), DownloadError, r"could not be downloaded: weights\.example answered 403 Forbidden"),
        (Fault(cut=0), DownloadError, r"weights\.example broke off after 0 of 300,000 bytes\.\n"),
        (Fault(body=OTHER), CorruptWeightsError, r"has the sha256 \w{64}, expected \w{64}.* Nothing was kept"),
        (Fault(body=b"<html>log in</html>"), CorruptWeightsError, r"19 bytes, expected 300000"),
        (Fault(body=CONTENT + b"more"), CorruptWeightsError, r"more than the 300,000 bytes of the file\. Nothing"),
        (Fault(body=b""), CorruptWeightsError, r"0 bytes, expected 300000"),
        (Fault(cut=65_536, declare=False), DownloadError, r"broke off after 65,536 of 300,000 bytes\.\n"),
    ],
)  # fmt: skip
def test_a_bad_answer_is_an_error_and_leaves_nothing(https, cache, fault, error, message):
    https.faults[NAME] = fault
    with pytest.raises(error, match=message):
        download.fetch_weights(spec_of())
    assert files_in(cache) == []
    https.faults.clear()  # the server is repaired
    assert download.fetch_weights(spec_of()).read_bytes() == CONTENT


def test_more_than_the_announced_size_is_not_stored(https, cache, monkeypatch):
    https.faults[NAME] = Fault(body=CONTENT * 100, declare=False)
    largest = 0
    discard = transfers.discard

    def watched(part):
        nonlocal largest
        largest = max(largest, transfers.size_of(part))
        discard(part)

    monkeypatch.setattr(transfers, "discard", watched)
    with pytest.raises(CorruptWeightsError, match=r"sent more than the 300,000 bytes of the file\. Nothing was kept"):
        download.fetch_weights(spec_of())
    assert 0 < largest <= len(CONTENT)
    assert files_in(cache) == []


@pytest.mark.parametrize("cut", [100_000, 250_000])
def test_a_dropped_connection_is_resumed(https, cache, cut):
    https.faults[NAME] = Fault(cut=cut, times=1)
    assert download.fetch_weights(spec_of()).read_bytes() == CONTENT
    assert len(https.requests) == 2
    assert len(files_in(cache)) == 1


def test_a_connection_without_progress_is_given_up(https, cache):
    https.faults[NAME] = Fault(cut=100_000)
    with pytest.raises(DownloadError, match=r"weights\.example broke off after \d+,\d{3} of 300,000 bytes\.\n"):
        download.fetch_weights(spec_of())
    assert len(https.requests) == 3  # the first brought something, the next two nothing new
    assert files_in(cache) == []


def test_the_error_without_a_network_is_two_lines(https, cache, caplog):
    https.shutdown()
    https.server_close()
    with pytest.raises(DownloadError) as caught:
        download.fetch_weights(spec_of())
    assert str(caught.value).splitlines() == [
        "model.h5, the weights of 'tiny', could not be downloaded: weights.example cannot be reached.",
        "On a machine with internet, run `keras-musictag download tiny --to FOLDER`; copy FOLDER to this machine and "
        "set KERAS_MUSICTAG_MIRROR to it.",
    ]
    assert caught.value.__cause__ is None and caught.value.__context__ is None  # no nested exception is shown
    assert caplog.text == ""  # what cannot be reached at all is not tried again
    assert files_in(cache) == []


def test_a_server_that_falls_silent_is_given_up(https, cache, monkeypatch):
    monkeypatch.setattr(transfers, "_TIMEOUT", 0.2)
    https.faults[NAME] = Fault(stall=100_000)
    with pytest.raises(DownloadError, match=r"broke off after \d+,\d{3} of 300,000 bytes"):
        download.fetch_weights(spec_of())
    assert files_in(cache) == []


def test_a_slow_server_is_waited_for(https):
    https.faults[NAME] = Fault(pause=0.3)
    assert download.fetch_weights(spec_of()).read_bytes() == CONTENT


def test_an_untrusted_certificate_is_refused(server, tmp_path, monkeypatch, cache):
    """The one test over real TLS: who sits in between is not believed, and a trusted certificate works."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*make.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    spec = spec_of(f"https://127.0.0.1:{server.server_port}/files/{NAME}")
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1:\d+ has a certificate that is not trusted"):
        download.fetch_weights(spec)
    assert files_in(cache) == []
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    assert download.fetch_weights(spec).read_bytes() == CONTENT


def test_there_is_a_progress_bar_on_a_terminal_only(https, monkeypatch, capsys, cache):
    download.fetch_weights(spec_of())
    assert capsys.readouterr().err == ""
    shutil.rmtree(cache)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    download.fetch_weights(spec_of())
    bar = capsys.readouterr().err
    assert NAME in bar
    assert "300k/300k" in bar


@pytest.mark.parametrize(
    "end", ["", "..", "a b.h5", "..\\..\\evil.h5", "x.h5?token=1", "-rf", ".hidden"], ids=lambda end: end or "nothing"
)
def test_an_address_must_end_in_a_plain_file_name(https, cache, end):
    with pytest.raises(SpecError, match="file name"):
        download.fetch_weights(spec_of(f"https://weights.example/files/{end}"))
    assert https.requests == []
    assert not cache.exists()


# === Processes that share a cache ===


def test_processes_fetch_one_file_at_the_same_time(server, cache, monkeypatch):
    monkeypatch.setenv("KERAS_MUSICTAG_MIRROR", f"{server.url}/files")
    server.faults[NAME] = Fault(stall=100_000)
    processes = [start_fetching() for _ in range(4)]
    wait_until(lambda: server.stalled == 4)  # all are in the middle
    server.release()
    results = [(*process.communicate(timeout=60), process.returncode) for process in processes]
    digest = hashlib.sha256(CONTENT).hexdigest()
    path = cache / "weights" / digest / NAME
    assert results == [(f"{path}\n", "", 0)] * 4
    assert files_in(cache) == [f"weights/{digest}/{NAME}"]
    assert path.read_bytes() == CONTENT


def test_threads_fetch_one_file_at_the_same_time(https, cache):
    https.faults[NAME] = Fault(stall=100_000)
    found = []
    threads = [threading.Thread(target=lambda: found.append(download.fetch_weights(spec_of()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    wait_until(lambda: https.stalled == 8)
    https.release()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert found[0].read_bytes() == CONTENT
    assert len(files_in(cache)) == 1


def test_a_killed_download_is_started_anew_and_swept_up(server, cache, monkeypatch):
    monkeypatch.setenv("KERAS_MUSICTAG_MIRROR", f"{server.url}/files")
    server.faults[NAME] = Fault(stall=200_000, times=1)
    process = start_fetching()
    wait_until(lambda: any(path.stat().st_size >= 131_072 for path in cache.rglob("*.part")))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    (half,) = cache.rglob("*.part")

    path = download.fetch_weights(spec_of())
    assert path.read_bytes() == CONTENT
    assert half.exists(), "a young part may belong to a process that lives"
    assert len(server.requests) == 2

    an_hour_ago = time.time() - download._ABANDONED - 1
    os.utime(half, (an_hour_ago, an_hour_ago))
    assert download.fetch_weights(spec_of()) == path
    assert files_in(path.parent) == [NAME]
    assert len(server.requests) == 2


def test_an_interrupted_download_leaves_nothing(https, cache, monkeypatch):
    def interrupted(url, part, size, label):
        part.write_bytes(CONTENT[:1000])
        raise KeyboardInterrupt

    monkeypatch.setattr(transfers, "_receive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        download.fetch_weights(spec_of())
    assert files_in(cache) == []


def test_a_process_that_was_faster_and_has_the_file_open(https, cache, monkeypatch):
    """Windows refuses to replace an open file; the file is good then, and what counts."""

    def refuse(self, target):
        target.write_bytes(CONTENT)
        raise PermissionError(errno.EACCES, "Access is denied", str(target))

    monkeypatch.setattr(Path, "replace", refuse)
    path = download.fetch_weights(spec_of())
    assert path.read_bytes() == CONTENT
    assert files_in(path.parent) == [NAME]


# === Rot, offline ===


def test_a_rotten_file_in_the_cache_is_fetched_again(https, caplog):
    path = download.fetch_weights(spec_of())
    rot(path)
    assert download.fetch_weights(spec_of()).read_bytes() == CONTENT
    assert "is damaged; fetching it again" in caplog.text
    assert len(https.requests) == 2


@pytest.mark.parametrize("variable", ["KERAS_MUSICTAG_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_nothing_is_asked_and_what_is_cached_loads(https, monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    with pytest.raises(
        OfflineError,
        match=r"model\.h5, the weights of 'tiny', is not on this machine, and offline mode is on .*\nOn a machine with",
    ):
        download.fetch_weights(spec_of())
    assert https.requests == []

    monkeypatch.delenv(variable)
    path = download.fetch_weights(spec_of())
    monkeypatch.setenv(variable, "1")
    assert download.fetch_weights(spec_of()) == path
    rot(path)
    with pytest.raises(OfflineError, match="is not on this machine"):
        download.fetch_weights(spec_of())
    assert len(https.requests) == 1


@pytest.mark.parametrize(
    ("value", "offline"), [("1", True), ("true", True), ("ON", True), ("0", False), ("", False), ("no", False)]
)
def test_what_counts_as_offline(monkeypatch, value, offline):
    monkeypatch.setenv("KERAS_MUSICTAG_OFFLINE", value)
    assert files.is_offline() is offline


# === Storage ===


def test_the_cache_lies_below_a_file(https, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("KERAS_MUSICTAG_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(
        CacheError, match=r"cannot be stored under .*file.*choose another folder with KERAS_MUSICTAG_CACHE"
    ):
        download.fetch_weights(spec_of())


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (errno.EROFS, "the file system is read-only"),
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EACCES, "it cannot be written"),
    ],
)
@pytest.mark.parametrize("step", ["mkdir", "open", "replace"])
def test_what_is_wrong_with_the_cache_is_said(https, monkeypatch, cache, code, reason, step):
    original = getattr(Path, step)

    def fail(self, *args, **kwargs):
        if str(self).startswith(str(cache)):
            raise OSError(code, os.strerror(code), str(self))
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Path, step, fail)
    with pytest.raises(CacheError, match=f"{reason} .*Nothing was kept"):
        download.fetch_weights(spec_of())
    assert not cache.exists() or files_in(cache) == []


@pytest.fixture
def tiny_disk(tmp_path):
    """A real file system of 128 KiB, full after two chunks."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)]
    if not sys.platform.startswith("linux") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("declare", [True, False])
def test_a_disk_that_runs_full(https, tiny_disk, monkeypatch, declare):
    https.faults[NAME] = Fault(declare=declare)
    monkeypatch.setenv("KERAS_MUSICTAG_CACHE", str(tiny_disk))
    with pytest.raises(
        CacheError, match=r"the disk is full .*Nothing was kept\. Make room|300,000 are needed\. Make room"
    ):
        download.fetch_weights(spec_of())
    assert files_in(tiny_disk) == []


def test_the_cache_of_the_user(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KERAS_MUSICTAG_CACHE", "~/weights")
    assert files.cache_folder() == tmp_path / "weights"
    monkeypatch.delenv("KERAS_MUSICTAG_CACHE")
    assert files.cache_folder().name == "keras_musictag"


# === Several addresses ===

SECOND = "https://weights.example/files/second/other_name.h5"


@pytest.mark.parametrize("fault", [Fault(status=404), Fault(body=OTHER), Fault(cut=0)], ids=["404", "other", "cut"])
def test_the_next_address_is_asked(https, cache, fault):
    https.files["second/other_name.h5"] = CONTENT
    https.faults[f"/files/{NAME}"] = fault
    path = download.fetch_weights(spec_of(mirrors=[SECOND]))
    assert path.read_bytes() == CONTENT and path.name == NAME
    assert https.requests[-1] == "GET /files/second/other_name.h5"
    assert len(files_in(cache)) == 1


def test_all_addresses_are_named_where_none_delivers(https, cache):
    https.faults[NAME] = Fault(body=OTHER)
    with pytest.raises(DownloadError) as caught:
        download.fetch_weights(spec_of(mirrors=["https://127.0.0.1:1/model.h5", SECOND]))
    assert str(caught.value).splitlines()[0] == (
        f"model.h5, the weights of 'tiny', could not be downloaded: {URL} is not the file the spec pins; "
        "127.0.0.1:1 cannot be reached; weights.example answered 404 Not Found."
    )
    assert files_in(cache) == []


def test_the_hub_as_a_second_address(https, monkeypatch, tmp_path):
    point_client_at(https, tmp_path / "hf", monkeypatch)
    https.repos["org/files"] = Repo()
    commit = https.repos["org/files"].commit({NAME: CONTENT})
    del https.files[NAME]
    spec = spec_of(mirrors=[f"hf://org/files@{commit}"])
    path = download.fetch_weights(spec)
    assert path.read_bytes() == CONTENT and tmp_path / "hf" in path.parents
    before = len(https.requests)
    monkeypatch.setenv("KERAS_MUSICTAG_OFFLINE", "1")
    assert download.fetch_weights(spec) == path
    assert len(https.requests) == before


def test_a_local_name_is_used_in_caches_and_mirrors(https, cache, monkeypatch, tmp_path):
    spec = spec_of(local_name="my.h5")
    assert download.fetch_weights(spec).name == "my.h5"
    shutil.rmtree(cache)
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    monkeypatch.setenv("KERAS_MUSICTAG_MIRROR", str(mirror))
    (mirror / "my.h5").write_bytes(CONTENT)
    assert download.fetch_weights(spec) == mirror / "my.h5"
    (mirror / "my.h5").rename(mirror / "model (1).h5")  # as a browser calls it
    assert download.fetch_weights(spec) == mirror / "model (1).h5"
    assert len(https.requests) == 1


# === Redirects, as public file servers have them ===


@pytest.fixture
def ranges(monkeypatch):
    with RangeServer() as server:
        server.files[NAME] = CONTENT
        answer_https(server, monkeypatch)
        server.redirects = {"a/model.h5": "b/model.h5", "b/model.h5": NAME}
        yield server


def test_redirects_are_followed_and_resumed(ranges, cache):
    ranges.etags[NAME] = '"v1"'
    ranges.faults[NAME] = RangeFault(cut=200_000)
    path = download.fetch_weights(spec_of(f"https://weights.example/a/{NAME}"))
    assert path.read_bytes() == CONTENT
    step = 200_000 // transfers._CHUNK * transfers._CHUNK
    chain = ["a/model.h5", "b/model.h5", NAME]
    assert ranges.sent == [*chain, *(f"{name} bytes={step}-" for name in chain)]
    assert files_in(path.parent) == [NAME]


def test_redirects_without_end(ranges, cache):
    ranges.redirects["b/model.h5"] = "a/model.h5"
    with pytest.raises(DownloadError, match=r"could not be downloaded: weights\.example redirects endlessly\.\n"):
        download.fetch_weights(spec_of(f"https://weights.example/a/{NAME}"))
    assert files_in(cache) == []
