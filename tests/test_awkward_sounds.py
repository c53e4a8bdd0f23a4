"""Sounds that players play: none is refused, cut short or called silent, and a note says what is odd about one."""

import functools
import io
import json
import re

import numpy as np
import pytest
import soundfile
from audio_files import av_encode, dff, dsd, dsf, encode, ffmpeg, load, noted, save, signal
from click.testing import CliRunner

import keras_musictag as kmt
from keras_musictag.apps.library import tag_library
from keras_musictag.audio import containers, decoding, pyav_decoder
from keras_musictag.audio import reading as audio
from keras_musictag.cli import main
from keras_musictag.errors import AudioError, TruncatedAudioError


def tone(path, seconds, *options, rate=44_100, pitch=440):
    """A sine, written by ffmpeg."""
    return ffmpeg(path, "-f", "lavfi", "-i", f"sine={pitch}:r={rate}:d={seconds}", *options)


def pitch_of(y, rate=16_000):
    """Frequency of the strongest partial, in Hz."""
    return np.argmax(np.abs(np.fft.rfft(y * np.hanning(len(y))))) * rate / len(y)


# === MP3 without a header ===

HEADERLESS = ("-ac", "2", "-c:a", "libmp3lame", "-write_xing", "0", "-id3v2_version", "0")


@pytest.fixture(scope="module")
def vbr(tmp_path_factory):
    """60 s that begin with 3 s at 320 kb/s: libsndfile guesses 8.7 s from these."""
    folder = tmp_path_factory.mktemp("vbr")
    source = "-f", "lavfi", "-i", "anoisesrc=r=44100:d=3:a=0.3:seed=1"
    noise = ffmpeg(folder / "a.mp3", *source, *HEADERLESS, "-b:a", "320k")
    sine = tone(folder / "b.mp3", 57, *HEADERLESS, "-b:a", "32k")
    return save(folder / "vbr.mp3", noise.read_bytes() + sine.read_bytes())


@pytest.mark.parametrize("as_file", [False, True])
def test_an_mp3_is_as_long_as_its_frames(vbr, as_file):
    source = io.BytesIO(vbr.read_bytes()) if as_file else vbr
    assert soundfile.info(vbr).duration < 10
    y, notes = noted(source)
    assert abs(len(y) / 16_000 - 60) < 0.5 and notes == []
    assert abs(audio.duration_of(vbr) - 60) < 0.5
    assert pitch_of(y[-10 * 16_000 :]) == pytest.approx(440, abs=1)
    part = load(source, offset=30, duration=5)
    np.testing.assert_allclose(part[800:-800], y[30 * 16_000 : 35 * 16_000][800:-800], atol=1e-5)  # edges: resampling
    assert len(load(source, offset=5, duration=10)) == 160_000  # the guess ends in the middle


def test_no_mp3_is_counted_without_need(vbr, monkeypatch, tmp_path):
    """Counting takes some 40 ms for 4 minutes; most files without a header end a little before what is guessed."""
    counted = []
    monkeypatch.setattr(pyav_decoder._Frames, "remaining_seconds", lambda self: counted.append(1) or 0.0)
    load(io.BytesIO(encode(signal(3), file_format="MP3")))  # it has a header
    load(tone(tmp_path / "cbr.mp3", 20, *HEADERLESS, "-b:a", "128k"))
    load(vbr, duration=5)  # within the guess
    assert counted == []
    load(vbr)
    assert counted == [1]


# === Damage in the middle of an MP3 ===


@pytest.fixture(scope="module")
def mp3():
    return encode(signal(20, channels=2), file_format="MP3")


def without_header(data):
    return data.replace(b"Xing", b"\0\0\0\0", 1)


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("junk", ["noise", "zeros", "frames of 48 kHz"])
def test_an_mp3_continues_after_damage(mp3, header, overwrite, junk):
    data = mp3 if header else without_header(mp3)
    whole = load(io.BytesIO(data))
    half = len(data) // 2
    rubbish = {"noise": np.random.default_rng(0).bytes(5000), "zeros": bytes(5000)}.get(
        junk, b"\xff\xfb\x94\x64" * 1250
    )
    y, notes = noted(io.BytesIO(data[:half] + rubbish + data[half + 5000 * overwrite :]))
    assert abs(len(y) - len(whole)) < 0.5 * 16_000
    (note,) = notes
    damaged = re.fullmatch(r"The file is damaged at (\d+\.\d) s; decoding continued after the damage\.", note)
    assert abs(float(damaged[1]) - 10) < 1
    # mpg123 decodes a frame differently in the last bits from one run to the next: measured 8e-7.
    np.testing.assert_allclose(y[: 9 * 16_000], whole[: 9 * 16_000], atol=3e-6)
    # Its end is that of the whole, but for a shift: what the junk took is missing in the middle.
    end, expected = y[-2 * 16_000 : -16_000], whole[-3 * 16_000 :]
    at = np.argmax(np.correlate(expected, end, "valid"))
    assert np.corrcoef(end, expected[at : at + len(end)])[0, 1] > 0.97  # the shift is no whole number of samples here


def test_an_mp3_that_ends_early_is_an_error_with_a_hole_and_without(mp3):
    half, most = len(mp3) // 2, int(0.9 * len(mp3))
    hole = mp3[:half] + bytes(5000) + mp3[half:]
    for data in (mp3[:most], hole[:most], mp3[:most] + bytes(len(mp3) - most), hole[: int(0.93 * len(hole))]):
        with pytest.raises(TruncatedAudioError, match=r"decoding stopped after 1[789]\.\d s of 20\.0 s"):
            load(io.BytesIO(data))
    with pytest.raises(TruncatedAudioError, match=r"of 20\.0 s"):  # too much is missing, though its end is there
        load(io.BytesIO(mp3[:half] + bytes(len(mp3) // 3) + mp3[half + len(mp3) // 3 :]))


def test_a_hole_in_aac_and_ac3():
    """Raw frames without an index: FFmpeg finds the next one."""
    y = signal(6)
    for container, codec in (("adts", "aac"), ("ac3", "ac3")):
        data = av_encode(y, container=container, codec=codec)
        half = len(data) // 2
        hole, _ = noted(io.BytesIO(data[:half] + np.random.default_rng(1).bytes(400) + data[half + 400 :]))
        assert abs(len(hole) - 6 * 16_000) < 0.5 * 16_000, codec
    with pytest.raises(AudioError):
        load(io.BytesIO(data[:2000] + np.random.default_rng(1).bytes(len(data))))


def test_damaged_frames_are_clipped():
    """A frame joined to the rest of another one decodes to thousands of times full scale."""
    y = signal(6, 22_050, 2)
    wild = y.copy()
    wild[:, 50_000:51_000] *= 1e4
    blocks = [part.astype("float32") for part in np.array_split(wild, 7, axis=1)]
    notes = []
    out = np.concatenate(list(decoding.clipped(iter(blocks), "x.mp3", 22_050, 22_050, notes)), axis=1)
    assert np.abs(out).max() == 1
    np.testing.assert_array_equal(out[:, :50_000], y[:, :50_000].astype("float32"))
    assert notes == ["The file is damaged at 3.3 s: samples far over full scale were clipped."]
    wild[:, 20_000:50_000] *= 1e4
    with pytest.raises(TruncatedAudioError, match=r"stopped after 0\.9 s \(what follows is far over full scale\)"):
        list(decoding.clipped(iter([wild]), "x.mp3", 22_050, 0, notes))
    integers = (y * 2**15).astype("int16")
    assert next(decoding.clipped(iter([integers]), "x.mp3", 22_050, 0, notes)) is integers


def test_bytes_stated_by_an_mp3(mp3):
    missing, stated = containers.mp3_bytes_missing(io.BytesIO(mp3), len(mp3))
    assert missing == 0 and stated == len(mp3)
    tag = b"ID3\4\0\0\0\0\x08\0" + bytes(1024)
    assert containers.mp3_bytes_missing(io.BytesIO(tag + mp3), len(tag + mp3) - 100) == (100, stated)
    assert containers.mp3_bytes_missing(io.BytesIO(without_header(mp3)), 0) is None
    vbri = b"\xff\xfb\x90\0" + bytes(32) + b"VBRI" + bytes(6) + (5000).to_bytes(4, "big") + bytes(30)
    assert containers.mp3_bytes_missing(io.BytesIO(vbri), 4000) == (1000, 5000)
    for cut in range(60):  # any beginning of one
        containers.mp3_bytes_missing(io.BytesIO(mp3[:cut]), 0)
        containers.mp3_bytes_missing(io.BytesIO(vbri[:cut]), 0)


# === FLAC of unknown length, with tags behind it ===

ID3V1 = b"TAG" + bytes(125)


def ape(flags):
    """Header or footer of an APEv2 tag of one item of 11 bytes."""
    return b"APETAGEX" + b"".join(number.to_bytes(4, "little") for number in (2000, 43, 1, flags)) + bytes(8)


ITEM = b"key=value.."
LYRICS = b"LYRICSBEGIN" + b"x" * 20 + b"000031LYRICS200"
TAGS = {
    "ID3v1": ID3V1,
    "enhanced ID3v1": b"TAG+" + bytes(223) + ID3V1,
    "APEv2": ITEM + ape(0),
    "APEv2 with a header": ape(0xA0000000) + ITEM + ape(0x80000000),
    "Lyrics3": LYRICS,
    "Lyrics3 and ID3v1": LYRICS + ID3V1,
}


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("as_file", [False, True])
def test_a_piped_flac_with_tags_behind_it(tmp_path, tag, as_file):
    data = bytearray(encode(signal(2), file_format="FLAC"))
    data[8 + 14 : 8 + 18] = bytes(4)  # no length, as written to a pipe
    data = bytes(data) + TAGS[tag]
    path = save(tmp_path / "a.flac", data)
    y, notes = noted(io.BytesIO(data) if as_file else path)
    assert y.shape == (32_000,) and notes == []
    assert load(path, offset=1.5).shape == (8000,)
    with pytest.raises(TruncatedAudioError):
        load(io.BytesIO(data[: len(data) // 2]))


def test_position_of_tags_at_the_end():
    data = bytes(1000)
    for tag in TAGS.values():
        assert containers.end_before_tags(io.BytesIO(data + tag)) == 1000
    for none in (b"", data, b"TAG", ID3V1[:50], b"LYRICS200", ape(0)[:31], b"999999LYRICS200"):
        assert containers.end_before_tags(io.BytesIO(none)) is None


def test_a_piped_flac_of_ffmpeg(tmp_path):
    piped = tone(tmp_path / "a.flac", 3)
    data = bytearray(piped.read_bytes())
    data[8 + 13] &= 0xF0
    data[8 + 14 : 8 + 18] = bytes(4)
    assert len(load(io.BytesIO(bytes(data) + ID3V1))) == 48_000


# === Formats that used to be passed over ===


@functools.cache
def bits(rate):
    return dsd(signal(1.5, channels=2), rate)


@pytest.mark.parametrize("rate", [64 * 44_100, 256 * 44_100])
@pytest.mark.parametrize("write", [dsf, dff])
def test_dsd(write, rate):
    y = load(io.BytesIO(write(bits(rate), rate)))
    expected = load(signal(1.5, channels=2), sr=44_100)
    assert abs(len(y) - len(expected)) < 0.05 * 16_000  # whole blocks
    fit = np.corrcoef(y[:20_000], expected[:20_000])[0, 1]
    assert fit > 0.95, fit  # the modulator's noise


@pytest.mark.parametrize("name", ["a.ac3", "a.tta", "a.mka", "a.eac3", "a.wv", "a.m4a", "a.wma", "a.mp2"])
def test_other_formats(tmp_path, name):
    y, notes = noted(tone(tmp_path / name, 2))
    assert abs(len(y) - 32_000) < 0.1 * 16_000 and notes == []
    assert pitch_of(y) == pytest.approx(440, abs=2)


def test_a_folder_of_all_sorts(tmp_path):
    music = tmp_path / "music"
    music.mkdir()
    y = signal(1.5, channels=2)
    save(music / "a.dsf", dsf(bits(64 * 44_100)))
    save(music / "a.dff", dff(bits(64 * 44_100)))
    save(music / "a.ac3", av_encode(y, container="ac3", codec="ac3"))
    save(music / "a.tta", av_encode(y, container="tta", codec="tta"))
    save(music / "a.MKA", av_encode(y, container="matroska", codec="flac"))
    save(music / "a.mod", b"a tune" + bytes(1074) + b"M.K." + bytes(5000))
    for name in ("Cover.JPG", "back.jpg", "rip.log", "README", ".hidden.txt"):
        (music / name).write_bytes(b"x")
    out = tmp_path / "tags.jsonl"
    summary = tag_library(music, out, "tiny", workers=1)
    rows = {row["path"].rsplit("/")[-1]: row for row in map(json.loads, out.read_text().splitlines())}
    assert {name: row["error_kind"] for name, row in rows.items()} == {
        "a.dsf": "", "a.dff": "", "a.ac3": "", "a.tta": "", "a.MKA": "", "a.mod": "unsupported",
    }  # fmt: skip
    assert summary.passed_over == {".jpg": 2, ".log": 1, "": 1}
    assert "Passed over: 2 .jpg, 1 without a suffix, 1 .log." in str(summary)


# === Notes ===


def test_notes_reach_the_user(tmp_path, mp3, caplog):
    music = tmp_path / "music"
    music.mkdir()
    hole = save(music / "hole.mp3", mp3[: len(mp3) // 2] + bytes(5000) + mp3[len(mp3) // 2 :])
    opposite = save(music / "opposite.wav", encode(np.stack([signal(2)[0], -signal(2)[0]])))
    fine = save(music / "fine.wav", encode(signal(2)))
    tiny = kmt.load("tiny")
    by_name = {result.source.name: result.notes for result in tiny.tag_many([hole, opposite, fine])}
    assert "damaged at" in by_name["hole.mp3"][0] and by_name["fine.wav"] == ()
    assert caplog.text == ""
    assert tiny.tag(opposite) == pytest.approx(tiny.tag(save(tmp_path / "one.wav", encode(signal(2)))), abs=1e-4)
    assert "opposite.wav': The channels have opposite phases" in caplog.text
    assert tiny.taggram(hole).notes == by_name["hole.mp3"]
    assert tiny.taggram(hole).to_dict()["notes"] and "notes" not in tiny.taggram(fine).to_dict()

    result = CliRunner().invoke(main, ["tag", "-m", "tiny", "--json", *map(str, (hole, opposite, fine))])
    assert result.exit_code == 0
    assert [len(json.loads(line).get("notes", ())) for line in result.stdout.splitlines()] == [1, 1, 0]
    assert result.stderr.count("note: ") == 2 and f"note: {opposite}: The channels" in result.stderr
    assert f"note: {hole}: The file is damaged" in CliRunner().invoke(main, ["taggram", "-m", "tiny", str(hole)]).stderr

    for ending in ("jsonl", "csv", "parquet"):
        out = tmp_path / f"tags.{ending}"
        summary = tag_library(music, out, tiny, workers=1)
        assert (summary.tagged, summary.noted, summary.failed) == (3, 2, 0)
        assert "2 of the files tagged now have notes" in str(summary)
    rows = [json.loads(line) for line in (tmp_path / "tags.jsonl").read_text().splitlines()]
    assert [bool(row["notes"]) for row in sorted(rows, key=lambda row: row["path"])] == [False, True, True]


@pytest.mark.parametrize(("rate", "noted_"), [(4_000, True), (7_999, True), (8_000, False)])
def test_a_low_sample_rate_is_noted(tmp_path, caplog, rate, noted_):
    path = tmp_path / "music" / "phone.wav"
    path.parent.mkdir()
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 2 * rate), rate)
    tiny = kmt.load("tiny")  # 16 kHz
    [result] = tiny.tag_many([path])
    assert len(result.notes) == noted_ and result.tags == tiny.tag(path)
    assert caplog.text.count("phone.wav': The sample rate is") == noted_
    told = CliRunner().invoke(main, ["tag", "-m", "tiny", str(path)])
    assert told.exit_code == 0 and told.stderr.count(f"note: {path}: The sample rate is {rate} Hz") == noted_
    assert tag_library(path.parent, tmp_path / "tags.jsonl", tiny, workers=1).noted == noted_


def test_what_a_low_sample_rate_means():
    _, notes = noted(np.ones(8_000, "float32"), sr=8_000, target_sr=32_000)
    assert notes == [
        "The sample rate is 8000 Hz, so the audio has no content above 4000 Hz. The model expects content up to "
        "16000 Hz."
    ]


def test_rows_written_before_there_were_notes(tmp_path):
    out = tmp_path / "tags.jsonl"
    clip = save(tmp_path / "a.wav", encode(signal(2)))
    tag_library(clip, out, "tiny", workers=1)
    row = json.loads(out.read_text())
    del row["notes"]
    out.write_text(json.dumps(row) + "\n")
    assert tag_library(clip, out, "tiny", workers=1).skipped == 1


# === Lengths and rates ===


def test_a_long_silence_before_the_music(tmp_path):
    rate = 8000
    quiet = np.zeros((1, 120 * rate))
    path = save(tmp_path / "late.flac", encode(np.concatenate([quiet, signal(5, rate)], axis=1), rate, "FLAC"))
    taggram = kmt.load("tiny").taggram(path)
    assert taggram.notes == () and taggram.times[-1] > 120
    assert np.abs(taggram.probabilities[-1] - taggram.probabilities[0]).max() > 0.01
    assert len(kmt.load("tiny").tag(path)) == 5


@pytest.mark.parametrize("file_format", ["WAV", "FLAC", "OGG", "MP3", "m4a"])
def test_a_fifth_of_a_second(tmp_path, file_format):
    y = signal(0.2)
    data = av_encode(y, codec="aac") if file_format == "m4a" else encode(y, file_format=file_format)
    tags = kmt.load("tiny").tag(save(tmp_path / "short", data))
    assert len(tags) == 5 and all(0 <= p <= 1 for p in tags.values())


@pytest.mark.parametrize("rate", [192_000, 384_000, 768_000])
def test_high_rates(tmp_path, rate):
    y = load(save(tmp_path / "a.wav", encode(0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate), rate, "WAV")))
    assert len(y) == 16_000
    assert pitch_of(y) == pytest.approx(440, abs=1)
    np.testing.assert_allclose(
        y[2000:-2000], 0.5 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)[2000:-2000], atol=1e-3
    )
