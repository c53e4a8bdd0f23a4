"""MagnaTagATune on a miniature with the published formats: tables, folders, broken clips, parts of an archive."""

import dataclasses
import hashlib
import io
import itertools
import shutil
import sys
import zipfile

import numpy as np
import pytest
import soundfile
from range_server import Fault, RangeServer

import keras_musictag.datasets  # noqa: F401 (registers the module that the next line looks up)
from keras_musictag import model_info
from keras_musictag.datasets.info import DatasetInfo
from keras_musictag.datasets.loaders.magnatagatune import download_magnatagatune, magnatagatune
from keras_musictag.datasets.manifest import DataError, Manifest
from keras_musictag.errors import CacheError, DownloadError, OfflineError
from keras_musictag.utils import transfers

mtt = sys.modules["keras_musictag.datasets.loaders.magnatagatune"]  # as an attribute of the package it is the function
PUBLISHED = mtt.info

TOP50 = model_info("musicnn_mtt").tags
OTHER_TAGS = [f"other tag {number}" for number in range(138)]
BROKEN = (
    "6/norine_braun-now_and_zen-08-gently-117-146.mp3",
    "8/jacob_heringman-josquin_des_prez_lute_settings-19-gintzler__pater_noster-204-233.mp3",
    "9/american_baroque-dances_and_suites_of_rameau_and_couperin-25-le_petit_rien_xiveme_ordre_couperin-88-117.mp3",
)
# Per folder two clips with tags (one in f has other tags only), one without any.
FULL = {"train": 36, "valid": 3, "test": 9}
CLEAN = {"train": 24, "valid": 2, "test": 5}


def miniature():
    """Tables and clips as published, in small: `{name: bytes}` of tables, and of clips by path."""
    columns = [OTHER_TAGS[0], *sorted(TOP50), *OTHER_TAGS[1:]]
    annotations = [["clip_id", *columns, "mp3_path"]]
    head = "clip_id track_number title artist album url segmentStart segmentEnd original_url mp3_path"
    infos = [head.split()]
    clips = {}

    def add(path, tags, title="Aria"):
        clip = str(2 + 3 * len(annotations))
        annotations.append([clip, *("1" if column in tags else "0" for column in columns), path])
        infos.append([clip, "1", title, f"Artist {path[0]}", "Album", "http://x", "0", "29", "http://y", path])
        clips[path] = b"" if path in BROKEN else f"sound of {path}".encode() * 40

    for number, folder in enumerate("f0123456789abcde"):
        add(f"{folder}/ann-album-01-first-0-29.mp3", {TOP50[number], "choral"}, 'The "Great" Aria')
        second = {OTHER_TAGS[3]} if folder == "f" else {"guitar", OTHER_TAGS[3]}
        add(f"{folder}/ann-album-02-second-29-58.mp3", second, '"Unclosed')
        add(f"{folder}/bob-album-03-third-0-29.mp3", set(), "Größe")
    for path in BROKEN:
        add(path, {"guitar"})
    infos.append(["99999", "3", "Not annotated", "Artist", "Album", "http://x", "0", "29", "", ""])
    quoted = "".join("\t".join(f'"{cell}"' for cell in row) + "\n" for row in annotations)
    plain = "".join("\t".join(row) + "\n" for row in infos)
    return {"annotations_final.csv": quoted.encode(), "clip_info_final.csv": plain.encode()}, clips


@pytest.fixture(autouse=True)
def small_counts(monkeypatch):
    """The counts of the miniature stand in for the published ones."""
    monkeypatch.setattr(mtt, "info", dataclasses.replace(mtt.info, splits={"full": FULL, "clean": CLEAN}))


@pytest.fixture
def folder(tmp_path):
    tables, clips = miniature()
    for name, content in {**tables, **clips}.items():
        path = tmp_path / "mtt" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "mtt"


# === Loading ===


def test_thePUBLISHED_numbers():
    """As in the literature; 25,863 annotated clips, three of them empty."""
    assert PUBLISHED.splits["full"] == {"train": 18_706, "valid": 1_825, "test": 5_329}
    assert PUBLISHED.splits["clean"] == {"train": 15_247, "valid": 1_529, "test": 4_332}
    assert sum(PUBLISHED.splits["full"].values()) + len(mtt._BROKEN) == 25_863
    assert set(BROKEN) == mtt._BROKEN
    assert mtt._SHA256 == {}  # the site publishes none


def test_the_full_split(folder):
    (folder / BROKEN[0]).write_bytes(b"somebody has repaired it, but the literature has not")
    manifest = magnatagatune(folder)
    assert manifest.tags == TOP50 and manifest.split_sizes() == FULL
    first = manifest[0]
    assert first.path == folder / "f" / "ann-album-01-first-0-29.mp3" and first.split == "test"
    assert first.tags == ("guitar", "choral") and first.group == "Artist f"
    assert first.source == "magnatagatune:5" and first.licence == "CC-BY-NC-SA-1.0"
    assert first.where == "annotations_final.csv:2"
    assert manifest[1].tags == () and manifest[4].tags == ("guitar",) and manifest[5].tags == ()
    by_folder = {row.path.parent.name: row.split for row in manifest}
    assert by_folder == {**dict.fromkeys("0123456789ab", "train"), "c": "valid", **dict.fromkeys("def", "test")}
    assert not {row.path for row in manifest} & {folder / path for path in BROKEN}
    assert manifest.targets()[:, TOP50.index("guitar")].sum() == 16


def test_the_clean_split(folder):
    manifest = magnatagatune(folder, "clean")
    assert manifest.split_sizes() == CLEAN and all(row.tags for row in manifest)
    assert manifest == magnatagatune(folder).filter(lambda row: bool(row.tags))


def test_the_clips_may_be_in_a_folder_of_their_own(folder):
    (folder / "mp3").mkdir()
    for name in "0123456789abcdef":
        (folder / name).rename(folder / "mp3" / name)
    assert magnatagatune(folder)[0].path == folder / "mp3" / "f" / "ann-album-01-first-0-29.mp3"


def test_an_artist_that_the_table_does_not_know_is_read_from_the_name(folder):
    path = folder / "clip_info_final.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + "".join(lines[2:]))
    assert [row.group for row in magnatagatune(folder)[:2]] == ["ann", "Artist f"]


def test_real_clips_pass_validation(folder):
    clips = sorted(set(miniature()[1]) - set(BROKEN))
    for number, path in enumerate(clips):
        noise = np.random.default_rng(number).uniform(-0.3, 0.3, 16_000)
        soundfile.write(folder / path, noise, 16_000, format="MP3")
    report = magnatagatune(folder).validate(allow_untagged=True, min_rows=0, decode=True)
    assert report.ok.split_sizes() == FULL
    only = [
        f"the tag {tag!r} is only in {split}: it"
        for tag, split in zip(TOP50[13:16], ("valid", "test", "test"), strict=True)
    ]
    assert [problem.reason[: len(start)] for problem, start in zip(report.problems, only, strict=True)] == only


# === Incomplete ===


def test_all_missing_files_are_reported(folder):
    shutil.rmtree(folder / "3")
    shutil.rmtree(folder / "c")
    (folder / "a" / "ann-album-01-first-0-29.mp3").unlink()
    (folder / "b" / "ann-album-02-second-29-58.mp3").write_bytes(b"")
    expected = (
        rf"is not complete: {folder} has no folders 3, c; "
        r"7 of 48 clips are missing \(by folder 3: 3, a: 1, c: 3; first 3/ann-album-01-first-0-29.mp3\); "
        r"1 of 48 clips are empty \(0 bytes\) \(by folder b: 1; first b/ann-album-02-second-29-58.mp3\)\. "
        r"Get them with download_magnatagatune\('.*/mtt'\), or pass partial=True"
    )
    with pytest.raises(DataError, match=expected):
        magnatagatune(folder)


def test_a_part_can_be_used_with_a_warning(folder, caplog):
    shutil.rmtree(folder / "3")
    (folder / "a" / "ann-album-01-first-0-29.mp3").write_bytes(b"")
    manifest = magnatagatune(folder, partial=True)
    assert manifest.split_sizes() == {"train": 32, "valid": 3, "test": 9}
    assert "not complete: " in caplog.text and "3 of 48 clips are missing" in caplog.text


def test_tables_of_another_size(folder, caplog):
    path = folder / "annotations_final.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-5] + lines[-3:]))  # the broken ones and two others are last
    with pytest.raises(
        DataError, match=r"is not the published table: 'full' has \{'train': 36, 'valid': 3, 'test': 7\}"
    ):
        magnatagatune(folder)
    assert len(magnatagatune(folder, partial=True)) == 46
    assert "is not the published table" in caplog.text


def test_a_wrong_folder(folder, tmp_path):
    with pytest.raises(
        DataError, match=r"nowhere is not a folder\. Pass the folder that has annotations_final.csv, or get"
    ):
        magnatagatune(tmp_path / "nowhere")
    with pytest.raises(
        DataError, match=r"has no annotations_final.csv and no clip_info_final.csv; it has: mtt\. Did you"
    ):
        magnatagatune(tmp_path)
    with pytest.raises(DataError, match=r"it has: ann-album.*Did you mean .*/mtt\?"):
        magnatagatune(folder / "a")
    (folder / "clip_info_final.csv").unlink()
    with pytest.raises(DataError, match=r"mtt has no clip_info_final.csv; it has: 0, 1.*Pass the folder"):
        magnatagatune(folder)
    with pytest.raises(DataError, match=r"split must be 'full' or 'clean'; got 'test'"):
        magnatagatune(folder, "test")


@pytest.mark.parametrize(
    ("table", "old", "new", "message"),
    [
        ("annotations_final.csv", b'"new age"', b'"new ages"', r"no column 'new age'; it begins with '\"clip_id\"\\t"),
        (
            "annotations_final.csv",
            b"\t",
            b",",
            r"no column 'clip_id', 'mp3_path', .*has columns separated by tabs: download it",
        ),
        (
            "annotations_final.csv",
            b'"choral"',
            b"choral\t",
            r"line 2 has 190 cells for 191 columns\. The file is damaged",
        ),
        ("annotations_final.csv", b'"f/ann', b'"../ann', r"csv:2 is not as published: clip '5', path '\.\./ann-album"),
        ("annotations_final.csv", b'"1"', b'"7"', r"csv:2 is not as published: .* values 0, 7\. The file is damaged"),
        ("clip_info_final.csv", b"Gr\xc3\xb6", b"Gr\xf6", r"clip_info_final.csv line 4 is not UTF-8: byte 0xf6"),
        ("clip_info_final.csv", b"\tAlbum", b"", r"clip_info_final.csv line 2 has 9 cells for 10 columns"),
    ],
)
def test_a_damaged_table(folder, table, old, new, message):
    path = folder / table
    path.write_bytes(path.read_bytes().replace(old, new))
    with pytest.raises(DataError, match=message):
        magnatagatune(folder)


def test_required_fields_of_a_data_set():
    assert isinstance(PUBLISHED, DatasetInfo) and "ISMIR 2009" in PUBLISHED.citation
    with pytest.raises(DataError, match=r"The data set 'x' does not state its licence, citation\. Fill them in"):
        DatasetInfo(name="x", description="d", url="u", licence="", citation="", splits={"a": {"test": 1}})


# === Downloading ===


@pytest.fixture
def server(monkeypatch):
    """A mirror of the miniature: the tables, and the archive in three parts."""
    monkeypatch.setattr(transfers, "_PAUSE", 0.001)
    tables, clips = miniature()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for path, content in clips.items():
            archive.writestr(path, content)
    data = file.getvalue()
    cut = [0, 40_000, 80_000, len(data)]
    with RangeServer() as server:
        server.files = dict(tables)
        for number, (start, end) in enumerate(itertools.pairwise(cut), 1):
            server.files[f"mp3.zip.00{number}"] = data[start:end]
        yield server


def test_a_download_gives_the_data_set(server, tmp_path):
    folder = tmp_path / "new" / "mtt"
    assert download_magnatagatune(folder, base_url=server.url + "/") == folder
    manifest = magnatagatune(folder)
    assert manifest.split_sizes() == FULL
    assert manifest[0].path.read_bytes() == miniature()[1]["f/ann-album-01-first-0-29.mp3"]
    names = ["annotations_final.csv", "clip_info_final.csv", "mp3.zip.001", "mp3.zip.002", "mp3.zip.003"]
    assert server.sent == names
    digests = [f"{hashlib.sha256(server.files[name]).hexdigest()}  {name}" for name in names]
    assert (folder / "SHA256SUMS").read_text().splitlines() == digests
    assert not list(folder.rglob("*.part*"))


def test_a_second_run_needs_no_server(server, tmp_path, monkeypatch):
    download_magnatagatune(tmp_path, base_url=server.url)
    monkeypatch.setenv("KERAS_MUSICTAG_OFFLINE", "1")
    server.requests.clear()
    (tmp_path / "4" / "ann-album-02-second-29-58.mp3").write_bytes(b"")
    download_magnatagatune(tmp_path, base_url=server.url)
    assert len(magnatagatune(tmp_path)) == 48
    for number in (1, 2, 3):
        (tmp_path / f"mp3.zip.00{number}").unlink()
    download_magnatagatune(tmp_path, base_url=server.url)  # all clips are there: the parts are not wanted
    assert server.requests == []
    (tmp_path / "4" / "ann-album-02-second-29-58.mp3").unlink()
    with pytest.raises(OfflineError, match=r"mp3.zip.001 is needed and offline mode is on"):
        download_magnatagatune(tmp_path, base_url=server.url)


def test_an_interrupted_download_is_resumed(server, tmp_path):
    server.faults["mp3.zip.002"] = Fault(cut=35_000, times=1)
    server.faults["mp3.zip.003"] = Fault(status=503, times=100)
    with pytest.raises(DownloadError, match=r"mp3.zip.003 could not be downloaded: .*503 .*run this again to resume"):
        download_magnatagatune(tmp_path, base_url=server.url)
    step = 35_000 // transfers._CHUNK * transfers._CHUNK
    assert server.sent[3:5] == ["mp3.zip.002", f"mp3.zip.002 bytes={step}-"]
    server.faults.clear()
    server.requests.clear()
    download_magnatagatune(tmp_path, base_url=server.url)
    assert server.sent == ["mp3.zip.003"] and len(magnatagatune(tmp_path)) == 48


def test_existing_files_are_kept(server, tmp_path):
    whole, half, long = (server.files[f"mp3.zip.00{number}"] for number in (1, 2, 3))
    (tmp_path / "mp3.zip.001").write_bytes(whole)
    (tmp_path / "mp3.zip.002").write_bytes(half[:10_000])
    (tmp_path / "mp3.zip.003").write_bytes(long + b"!")
    with pytest.raises(DataError, match=r"mp3.zip.003 has [\d,]+ bytes, but [\d,]+ on the server\. Delete it and run"):
        download_magnatagatune(tmp_path, base_url=server.url)
    assert server.sent[2:] == ["mp3.zip.002 bytes=10000-"]
    (tmp_path / "mp3.zip.003").unlink()
    download_magnatagatune(tmp_path, base_url=server.url)
    assert len(magnatagatune(tmp_path)) == 48


def test_a_file_that_changed_since_is_noticed(server, tmp_path, monkeypatch):
    download_magnatagatune(tmp_path, base_url=server.url)
    content = server.files["clip_info_final.csv"]
    (tmp_path / "clip_info_final.csv").write_bytes(content + b"\n")
    with pytest.raises(
        DataError, match=r"csv is not the downloaded file: its sha256 is \w{64}, expected \w{64}\. Delete it"
    ):
        download_magnatagatune(tmp_path, base_url=server.url)
    (tmp_path / "clip_info_final.csv").unlink()
    server.files["clip_info_final.csv"] = content + b"\n"  # the publisher has a new version
    download_magnatagatune(tmp_path, base_url=server.url)
    assert hashlib.sha256(content + b"\n").hexdigest() in (tmp_path / "SHA256SUMS").read_text()
    monkeypatch.setattr(mtt, "_SHA256", {"clip_info_final.csv": hashlib.sha256(content).hexdigest()})
    with pytest.raises(DataError, match=r"csv is not the downloaded file"):
        download_magnatagatune(tmp_path, base_url=server.url)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "annotations_final.csv",
            b"<html>log in</html>",
            r"begins with b'<html>log in</ht', expected .*Nothing was kept",
        ),
        ("mp3.zip.001", b"sorry", r"mp3.zip.001 \(5 bytes\) begins with b'sorry', expected b'PK'"),
        (
            "mp3.zip.003",
            b"x" * 40_000,
            r"mp3.zip.001, mp3.zip.002, mp3.zip.003 are not an intact zip archive: .*Delete mp3.z",
        ),
    ],
)
def test_wrong_content(server, tmp_path, name, content, message):
    server.files[name] = content
    with pytest.raises(DataError, match=message):
        download_magnatagatune(tmp_path, base_url=server.url)


def test_a_known_checksum_is_verified_before_anything_is_kept(server, tmp_path, monkeypatch):
    monkeypatch.setattr(mtt, "_SHA256", {"mp3.zip.002": "0" * 64})
    with pytest.raises(DataError, match=r"mp3.zip.002 .* has the sha256 \w{64}, expected 0{64}"):
        download_magnatagatune(tmp_path, base_url=server.url)
    assert not list(tmp_path.glob("mp3.zip.002*"))


def test_an_archive_of_something_else(server, tmp_path):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("0/other.mp3", b"x")
    data = file.getvalue()
    server.files |= {"mp3.zip.001": data[:10], "mp3.zip.002": data[10:20], "mp3.zip.003": data[20:]}
    with pytest.raises(
        DataError, match=r"The archive is unpacked, but .* has no folders 1, .*parts of another data set: del"
    ):
        download_magnatagatune(tmp_path, base_url=server.url)


def test_invalid_folder_and_address(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match=r"file cannot be created: .*Choose another folder"):
        download_magnatagatune(tmp_path / "file", base_url="http://127.0.0.1:9")
    with pytest.raises(DataError, match=r"base_url must begin with https:// or http://; got 'ftp://x'"):
        download_magnatagatune(tmp_path, base_url="ftp://x")


def test_a_manifest_of_it_is_read_again(folder, tmp_path):
    manifest = magnatagatune(folder)
    manifest.to_csv(folder / "manifest.csv")
    assert Manifest.load(folder / "manifest.csv") == manifest
