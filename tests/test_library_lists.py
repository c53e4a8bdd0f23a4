"""Lists of files, as programs of all systems write them: the file that is meant is found."""

import os
import unicodedata
import urllib.parse

import pytest
from audio_files import posix, save
from library_files import sound

from keras_musictag.apps.library import LibraryError, listing, playlist_reading, tag_library

NAME = "Caf\u00e9\u00a0 \u2013 \u00c4ngste"  # a no-break space and a dash, which cp1252 has too
COMPOSED, DECOMPOSED = (unicodedata.normalize(form, NAME) for form in ("NFC", "NFD"))


@pytest.fixture(params=[COMPOSED, DECOMPOSED], ids=["composed", "decomposed"])
def song(tmp_path, request):
    """A sound in a folder, both with accents in their names."""
    folder = tmp_path / "Bücher und Töne"
    folder = folder.with_name(unicodedata.normalize("NFD", folder.name)) if request.param == DECOMPOSED else folder
    folder.mkdir()
    return sound(folder / f"{request.param}.wav")


def test_four_programs_mean_the_same_file(tmp_path, song):
    inside = unicodedata.normalize("NFC", os.path.relpath(song, tmp_path))
    windows = "#EXTM3U\r\n#EXTINF:1,Somebody - Something\r\n" + inside.replace("/", "\\") + "\r\n"
    quoted = urllib.parse.quote(str(song))
    written = {
        "windows.m3u": windows.encode("cp1252"),
        "url.m3u8": b"\xef\xbb\xbf#EXTM3U\nfile://" + quoted.encode() + b"\n",
        "mac.m3u8": unicodedata.normalize("NFD", inside).encode(),
        "linux.txt": b"./" + unicodedata.normalize("NFC", str(inside)).encode() + b"\n\n",
    }
    sources = [save(tmp_path / name, content) for name, content in written.items()]
    for source in sources:
        assert [listed.path for listed in listing.find(source).files] == [str(song)], source
    summary = tag_library(sources, tmp_path / "tags.jsonl", "tiny", workers=1)
    assert (summary.files, summary.tagged, summary.failed) == (1, 1, 0)


@pytest.mark.parametrize("prefix", ["file://", "file:", "FILE://localhost", "file:///.."])
def test_urls(tmp_path, prefix):
    path = sound(tmp_path / "a b%#.wav")
    line = prefix + str(path).replace("%", "%25").replace(" ", "%20").replace("#", "%23")
    assert list(playlist_reading.read(str(save(tmp_path / "x.m3u", line.encode())))) == [str(path)]


@posix
def test_what_is_written_comes_first(tmp_path):
    """A backslash, `%20` and bytes that are no UTF-8 are names where there are such files."""
    for name in (b"a\\b.wav", b"a%20b.wav", b"caf\xe9.wav", "caf\u00e9.wav".encode(), b"file:x.wav"):
        path = os.path.join(os.fsencode(tmp_path), name)
        with open(path, "wb"):
            pass
        if not name.startswith(b"file:"):
            assert list(playlist_reading.read(str(save(tmp_path / "x.txt", name)))) == [os.fsdecode(path)]


def test_both_forms_of_a_name(tmp_path):
    first, second = sound(tmp_path / f"{COMPOSED}.wav"), tmp_path / f"{DECOMPOSED}.wav"
    sound(second, pitch=0.2)
    if len(os.listdir(tmp_path)) < 2:
        pytest.skip("the file system takes both for one")
    for path in (first, second):
        assert playlist_reading.existing(str(path)) == str(path)


def test_tables_too(tmp_path, song):
    for form in ("NFC", "NFD"):
        name = unicodedata.normalize(form, str(song.relative_to(tmp_path)))
        table = save(tmp_path / "table.csv", f"path\n{name}\n".encode())
        assert [listed.path for listed in listing.find(table).files] == [str(song)]


def test_what_is_not_there_is_named_as_written(tmp_path):
    (tmp_path / "x.m3u").write_bytes(b"#EXTM3U\r\nmissing\\song.mp3\r\n/no/such/\xe9.mp3\r\n")
    found = [listed.path for listed in listing.find(tmp_path / "x.m3u").files]
    assert found == [str(tmp_path / "missing\\song.mp3"), os.fsdecode(b"/no/such/\xe9.mp3")]
    summary = tag_library(tmp_path / "x.m3u", tmp_path / "tags.jsonl", "tiny", workers=1)
    assert summary.failures == {"unreadable": 2}


def test_utf16_is_refused(tmp_path):
    path = save(tmp_path / "x.m3u", "song.mp3\n".encode("utf-16"))
    with pytest.raises(LibraryError, match="Save the list as UTF-8"):
        list(playlist_reading.read(str(path)))
