"""Whether `library` loses anything when it is killed, and how fast it is, on thousands of files.

    python benchmarks/library.py MUSIC --work FOLDER --files 5000 --kills 10 [--ray] [--model NAME] [--write]

MUSIC is a folder of sounds. FOLDER/music gets copies of them, as many excerpts of them in other formats as it takes,
and among them 3 % of files that cannot be tagged. They are tagged once undisturbed, and once with SIGKILLs at random
moments, each followed by the same command. Every row has to be the same in both tables, but for the time it was made;
with `--ray` also in that of a cluster of two processes on this machine, one of which gets a SIGKILL. `--write` keeps
the figures in `benchmarks/results/library.json`. FOLDER/music is made once and used again.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import json
import os
import random
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import soundfile
from tqdm import tqdm

from keras_musictag.audio import reading as audio
from keras_musictag.datasets.folders import SUFFIXES
from keras_musictag.utils.files import replacing, write_atomically

RESULT = Path(__file__).parent / "results" / "library.json"
CORES = len(os.sched_getaffinity(0))
SEED = 0
_RATE = 44_100  # Hz, of the excerpts
_EXCERPT_SECONDS = (3.0, 40.0)
_FORMATS = {"wav": "WAV", "flac": "FLAC", "mp3": "MP3", "ogg": "OGG"}


@click.command()
@click.argument("music", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--work", required=True, type=click.Path(path_type=Path), help="Folder for files and tables.")
@click.option("--files", type=click.IntRange(min=20), default=5_000, show_default=True)
@click.option("--broken", type=click.FloatRange(0, 1), default=0.03, show_default=True, help="Share of broken files.")
@click.option("--kills", type=click.IntRange(min=0), default=10, show_default=True)
@click.option("--ray", is_flag=True, help="Also on Ray, where an actor is killed.")
@click.option("--model", "-m", default="musicnet_crnn", show_default=True)
@click.option("--write", is_flag=True, help="Keep the figures in benchmarks/results/library.json.")
def main(music: Path, work: Path, files: int, broken: float, kills: int, ray: bool, model: str, write: bool) -> None:
    """Build the files, run two or three times, compare."""
    options = [f"--files={files}", f"--broken={broken:g}", f"--kills={kills}", *ray * ["--ray"], f"--model={model}"]
    spoilt = build(music, work / "music", files, broken)
    for old in (*work.glob("undisturbed.parquet*"), *work.glob("killed.parquet*")):
        old.unlink()
    calm, disturbed = work / "undisturbed.parquet", work / "killed.parquet"
    seconds, busy = undisturbed(work / "music", calm, model)
    journal = calm.with_name(f"{calm.name}.rows.jsonl").stat().st_size
    killed_at = killed(work / "music", disturbed, model, kills, journal)
    expected, found = rows(calm), rows(disturbed)
    problems = compare(expected, found, work / "music", spoilt)
    on_ray = with_a_killed_actor(work / "music", work / "ray", model) if ray else None
    if on_ray:
        problems += [f"on Ray, {problem}" for problem in compare(expected, rows(work / "ray"), work / "music", spoilt)]
    sound = sum(row["duration_s"] or 0.0 for row in expected.values())
    result = {
        "files": files,
        "broken": len(spoilt),
        "kinds": {kind: sum(row["error_kind"] == kind for row in expected.values()) for kind in kinds(expected)},
        "model": model,
        "sound_hours": round(sound / 3600, 2),
        "seconds": round(seconds, 1),
        "files_per_second": round(files / seconds, 2),
        "cores": CORES,
        "cores_busy": round(busy, 3),
        "kills_after_rows": killed_at,
        "ray": on_ray,
        "problems": problems,
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(["python", "benchmarks/library.py", "MUSIC", "--work=FOLDER", *options]),
    }
    click.echo(json.dumps(result, indent=2))
    if write:
        RESULT.parent.mkdir(exist_ok=True)
        write_atomically(RESULT, (json.dumps(result, indent=2) + "\n").encode())
    sys.exit(int(bool(problems)))


# === Files ===


def build(music: Path, folder: Path, files: int, share: float) -> set[str]:
    """Make the files that are not there yet; returns the names of those that cannot be tagged."""
    sources = sorted(path for path in music.rglob("*") if path.suffix.lower() in SUFFIXES)
    folder.mkdir(parents=True, exist_ok=True)
    chance = random.Random(SEED)
    broken = set(chance.sample(range(files), round(share * files)))
    spoilt, kept = set(), set()
    for number in tqdm(range(files), desc="building", unit="file", delay=2):
        source = sources[number // 2 % len(sources)]
        if number in broken:
            ending, make = list(BREAKERS.items())[len(spoilt) % len(BREAKERS)]
            name = f"{number:06}-{ending}"
            spoilt.add(name)
        elif number % 2 == 0 and number // 2 < len(sources):
            name, make = f"{number:06}{source.suffix.lower()}", copied
        else:
            name, make = f"{number:06}.{list(_FORMATS)[number % len(_FORMATS)]}", excerpt
        kept.add(name)
        if not os.path.lexists(folder / name):
            make(source, folder / name, np.random.default_rng((SEED, number)))
    for path in folder.iterdir():  # of a run with other numbers
        if path.name not in kept:
            path.unlink()
    return spoilt


def copied(source: Path, path: Path, rng: np.random.Generator) -> None:
    """The file as it is."""
    with source.open("rb") as read, replacing(path) as file:
        shutil.copyfileobj(read, file)


def excerpt(source: Path, path: Path, rng: np.random.Generator) -> None:
    """Some seconds of it, a little quieter or louder, in the format that the name says."""
    write_atomically(path, _encoded(source, path.suffix[1:], rng))


def _cut(source: Path, path: Path, rng: np.random.Generator) -> None:
    whole = _encoded(source, path.suffix[1:], rng)
    write_atomically(path, whole[: len(whole) // 2])


def _encoded(source: Path, suffix: str, rng: np.random.Generator) -> bytes:
    y = audio.load(source, target_sr=_RATE)
    length = min(len(y), int(rng.uniform(*_EXCERPT_SECONDS) * _RATE))
    start = int(rng.integers(len(y) - length + 1))
    y = np.clip(y[start : start + length] * rng.uniform(0.5, 1.1), -1, 1)
    file = io.BytesIO()
    soundfile.write(file, y, _RATE, format=_FORMATS[suffix])
    return file.getvalue()


def _quiet(source: Path, path: Path, rng: np.random.Generator) -> None:
    soundfile.write(path, np.zeros(5 * _RATE), _RATE)


def _short(source: Path, path: Path, rng: np.random.Generator) -> None:
    soundfile.write(path, rng.uniform(-0.5, 0.5, 10), _RATE)


def _not_a_number(source: Path, path: Path, rng: np.random.Generator) -> None:
    soundfile.write(path, np.full(_RATE, np.nan), _RATE, subtype="FLOAT")


# End of the name -> what makes such a file. None of them can be tagged, whatever they were made from.
BREAKERS = {
    "empty.mp3": lambda source, path, rng: path.touch(),
    "noise.ogg": lambda source, path, rng: path.write_bytes(rng.bytes(20_000)),
    "zeros.flac": lambda source, path, rng: path.write_bytes(bytes(20_000)),
    "header.mp3": lambda source, path, rng: path.write_bytes(b"ID3\x04\0\0\0\0\0\0"),
    "nowhere.opus": lambda source, path, rng: path.symlink_to("nowhere"),
    "cut.wav": _cut,
    "cut.flac": _cut,
    "quiet.wav": _quiet,
    "short.wav": _short,
    "nan.wav": _not_a_number,
}


# === Runs ===


def start(music: Path, out: Path, model: str, *options: str) -> subprocess.Popen[bytes]:
    """The command as a process."""
    command = [sys.executable, "-m", "keras_musictag.cli", "library", str(music), "--out", str(out), "--model", model]
    return subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, start_new_session=True)


def finish(process: subprocess.Popen[bytes], out: Path) -> None:
    """Wait for the end of a run; 1 is also for files that cannot be tagged."""
    if process.wait() not in (0, 1) or not out.exists():
        raise SystemExit(f"The run ended with exit code {process.returncode}.")


def undisturbed(music: Path, out: Path, model: str) -> tuple[float, float]:
    """Run to the end; returns seconds, and the share of all cores that it kept busy, both with its start."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    finish(start(music, out, model), out)
    after, seconds = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - began
    computed = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, computed / seconds / CORES


def killed(music: Path, out: Path, model: str, kills: int, size: int) -> list[int]:
    """Run, kill, and run again; returns how many rows there were at each kill that came before the end.

    Args:
        music, out, model: of the command.
        kills: how many.
        size: bytes of the journal when all is done; kills are when it has random shares of them.
    """
    journal, chance, counts = out.with_name(f"{out.name}.rows.jsonl"), random.Random(SEED), list[int]()
    for share in sorted(chance.uniform(0, 0.98) for _ in range(kills)):
        process = start(music, out, model)
        while process.poll() is None and not (journal.exists() and journal.stat().st_size >= share * size):
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.5))
        if process.poll() is None:
            process.kill()
            process.wait()
            counts.append(journal.read_bytes().count(b"\n") if journal.exists() else 0)
    finish(start(music, out, model), out)
    return counts


def with_a_killed_actor(music: Path, out: Path, model: str) -> dict[str, float]:
    """Run on Ray with two actors, and kill one of them when the first rows are written; returns how that went."""
    shutil.rmtree(out, ignore_errors=True)
    began, killed_after = time.monotonic(), None
    process = start(music, out, model, "--engine=ray", "--actors=2", "--workers=1")
    while process.poll() is None:
        if killed_after is None and any(out.glob("*.parquet")) and len(running := actors()) == 2:
            os.kill(running[0], signal.SIGKILL)
            killed_after = round(time.monotonic() - began, 1)
        time.sleep(0.1)
    finish(process, out)
    if killed_after is None:
        raise SystemExit("On Ray, all was done before an actor could be killed. Take more files.")
    return {"seconds": round(time.monotonic() - began, 1), "killed_after_seconds": killed_after}


def actors() -> list[int]:
    """Numbers of the processes that are Ray's actors for libraries; Linux only."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes().startswith(b"ray::LibraryActor"):
                found.append(int(path.parent.name))
    return sorted(found)


# === Comparison ===


def rows(table: Path) -> dict[str, dict[str, Any]]:
    """Path -> row without its time."""
    import pyarrow.parquet as pq

    records = pq.read_table(table).to_pylist()
    by_path = {record["path"]: record for record in records}
    if len(by_path) != len(records):
        raise SystemExit(f"{table} has {len(records) - len(by_path)} files twice.")
    for record in records:
        del record["tagged_at"]
    return by_path


def kinds(table: dict[str, dict[str, Any]]) -> list[str]:
    """Kinds of errors."""
    return sorted({row["error_kind"] for row in table.values()} - {""})


def compare(
    expected: dict[str, dict[str, Any]], found: dict[str, dict[str, Any]], music: Path, spoilt: set[str]
) -> list[str]:
    """What is wrong: files without rows, rows that differ, broken files with tags, others with errors."""
    files = {os.path.join(os.path.abspath(music), name) for name in os.listdir(music)}
    problems = [f"{path}: in the folder or in the table only" for path in sorted(files ^ expected.keys())]
    for path in sorted(expected.keys() | found.keys()):
        if expected.get(path) != found.get(path):
            problems.append(f"{path}: {expected.get(path)} became {found.get(path)}")
    for path, row in expected.items():
        if bool(row["error"]) != (os.path.basename(path) in spoilt):
            problems.append(f"{path}: {row['error'] or 'is broken and was tagged'}")
    return problems


if __name__ == "__main__":
    main()
