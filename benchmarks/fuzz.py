"""Whether any damaged or hostile file makes `library` hang, crash, exhaust memory or write a wrong row.

    python benchmarks/fuzz.py FOLDER [--cases N] [--seed S] [--sparse-gb N] [--write]

Every case is a file made from the bundled clip in one of a dozen formats: cut, with bits flipped, pieces overwritten,
moved or taken from other formats, headers that lie, or plain noise; case `i` of a seed is always the same. Before them
come files that only a file system can make: pipes, loops of links, what cannot be read, sparse gigabytes. All are
tagged by `tag_library`, decoded twice in worker processes (by path and as a file object, which must agree) and once in
part, with limits on time and on memory. FOLDER/findings keeps each file of which a row is wrong; the exit code is 1
then. `--write` keeps the counts in `benchmarks/results/fuzz.json`.
"""

from __future__ import annotations

import collections
import contextlib
import datetime
import hashlib
import json
import math
import os
import random
import resource
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import click
import numpy as np
import soundfile
from fuzz_cases import make, odd_files, sounds
from tqdm import tqdm

import keras_musictag as kmt
from keras_musictag.apps.library import pool, tag_library
from keras_musictag.apps.library.library_rows import readable
from keras_musictag.audio import reading as audio
from keras_musictag.errors import AudioError
from keras_musictag.utils.files import write_atomically

RESULT = Path(__file__).parent / "results" / "fuzz.json"
MEMORY = 2**29  # bytes that decoding a file may add to what a worker process has when it starts
STREAM = "fuzz:stream"  # what decodes in the workers
TIMEOUT = 60.0  # seconds that decoding a file may take; sparse gigabytes have ten times as long
_CHUNK = 500  # cases per run of `tag_library`
_SMALL = 2**24  # bytes; files up to here are decoded twice
_NEVER = ("timeout", "crash", "memory", "decoder", "model", "changed")  # kinds of errors that are findings


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--cases", type=click.IntRange(min=0), default=5_000, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--sparse-gb", type=click.FloatRange(min=0), default=10.0, show_default=True, help="Of sparse files.")
@click.option("--write", is_flag=True, help="Keep the counts in benchmarks/results/fuzz.json.")
def main(folder: Path, cases: int, seed: int, sparse_gb: float, write: bool) -> None:
    """Make files, tag them, look at the rows."""
    begun = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    tagger, made = kmt.load("tiny"), sounds()
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    odd = odd_files(folder / "odd", int(sparse_gb * 1e9), made["wav"])
    problems = run(folder, folder / "odd", {name: ("odd", must) for name, must in odd.items()}, tagger, counts)
    for first in tqdm(range(0, cases, _CHUNK), desc="fuzzing", unit="chunk", delay=2):
        batch = folder / "cases"
        batch.mkdir()
        expected = {}
        for number in range(first, min(first + _CHUNK, cases)):
            case = make(number, seed, made)
            (batch / os.fsdecode(case.name)).write_bytes(case.content)
            expected[case.name] = (case.kind, case.must)
        problems += run(folder, batch, expected, tagger, counts)
        if problems:
            break
    result = {
        "cases": sum(map(sum, (counter.values() for counter in counts.values()))),
        "seed": seed,
        "problems": problems,
        "noise_with_tags": counts["noise"]["tagged"],
        "outcomes": {kind: dict(sorted(counter.items())) for kind, counter in sorted(counts.items())},
        "seconds": round(time.monotonic() - begun, 1),
        "versions": {"libsndfile": soundfile.__libsndfile_version__, "av": av.__version__},
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(
            [
                "python",
                "benchmarks/fuzz.py",
                "FOLDER",
                f"--cases={cases}",
                f"--seed={seed}",
                f"--sparse-gb={sparse_gb:g}",
            ]
        ),
    }
    click.echo(json.dumps(result, indent=2))
    if write:
        RESULT.parent.mkdir(exist_ok=True)
        write_atomically(RESULT, (json.dumps(result, indent=2) + "\n").encode())
    sys.exit(int(bool(problems)))


# === In the workers ===


def stream(path: str, **options: Any) -> Iterator[np.ndarray]:
    """`audio.stream` within limits, and compared with what a file object gives; what is wrong is an AssertionError."""
    _limit()
    # Where the first bytes say nothing, libsndfile goes by the name ".mp3", which a file object has not.
    small = os.path.getsize(path) <= _SMALL and not (path.endswith(".mp3") and not _recognised(path))
    other = hashlib.sha256()
    said: str | None = None
    if small:
        chance = random.Random(os.fsencode(path))
        with open(path, "rb") as file:
            _part(file, chance.uniform(0, 4), chance.uniform(0.01, 4), options)
            said = _digest(file, other, options)
    digest = hashlib.sha256()
    try:
        for block in audio.stream(path, **options):
            assert block.dtype == np.float32 and np.isfinite(block).all(), "samples that are none"
            digest.update(block)
            yield block
    except AudioError as error:
        assert said in (None, type(error).__name__), (
            f"by path {type(error).__name__}, by file object {said or 'a sound'}"
        )
        raise
    assert not small or said == "", f"by path a sound, by file object {said}"
    assert not small or digest.digest() == other.digest(), "path and file object give other sounds"


def _recognised(path: str) -> bool:
    with open(path, "rb") as file, contextlib.suppress(soundfile.LibsndfileError):
        soundfile.info(file)
        return True
    return False


def _part(file: Any, offset: float, duration: float, options: dict[str, Any]) -> None:
    with contextlib.suppress(AudioError):
        audio.load(file, offset=offset, duration=duration, **options)


def _digest(file: Any, digest: Any, options: dict[str, Any]) -> str:
    """Name of the error, empty if there is none."""
    try:
        for block in audio.stream(file, **options):
            digest.update(block)
    except AudioError as error:
        return type(error).__name__
    return ""


_limited = False


def _limit() -> None:
    global _limited
    if not _limited:
        (pages, *_) = Path("/proc/self/statm").read_text().split()
        limit = int(pages) * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        _limited = True


# === Rows ===


def run(
    folder: Path,
    files: Path,
    expected: dict[bytes, tuple[str, str]],
    tagger: kmt.Tagger,
    counts: dict[str, collections.Counter[str]],
) -> list[str]:
    """Tag a folder of cases, count what comes out, and remove them.

    Args:
        folder: for the output and for findings.
        files: folder of the cases.
        expected: name -> kind of case, and what it must become.
        tagger: to tag with.
        counts: kind of case -> outcomes, counted here.

    Returns:
        What is wrong; those files are in `folder/findings`.
    """
    pool._STREAM = STREAM
    out = folder / "rows.jsonl"
    tag_library(files, out, tagger, timeout=TIMEOUT * (10 if files.name == "odd" else 1), resume=False)
    rows = [json.loads(line) for line in out.read_bytes().splitlines()]
    by_path = {row["path"]: row for row in rows}
    problems = [f"{len(rows) - len(by_path)} files have two rows"] if len(rows) > len(by_path) else []
    for name, (kind, must) in expected.items():
        path = files / os.fsdecode(name)
        row = by_path.pop(readable(os.path.abspath(path)), None)
        counts[kind][row["error_kind"] or "tagged" if row else "no row"] += 1
        problem = wrong(row, path, must)
        if problem:
            problems.append(f"{name!r}: {problem}")
            (folder / "findings").mkdir(exist_ok=True)
            if path.is_file() and path.stat().st_size <= _SMALL:
                shutil.copyfile(path, folder / "findings" / path.name)
    problems += [f"{path}: nobody asked for this row" for path in by_path]
    shutil.rmtree(files)
    return problems


def wrong(row: dict[str, Any] | None, path: Path, must: str) -> str:
    """What is wrong with a row; empty if nothing is."""
    if row is None:
        return "there is no row"
    if row["error_kind"] in _NEVER:
        return f"{row['error_kind']}: {row['error']}"
    outcome = row["error_kind"] or "tagged"
    if must and outcome != must and not (must == "error" and row["error_kind"]):
        return f"{outcome} instead of {must}: {row['error']}"
    if row["error"]:
        return "tags beside an error" if row["tags"] else ""
    content = hashlib.sha256(path.read_bytes()).hexdigest() if path.stat().st_size <= _SMALL else row["sha256"]
    if row["sha256"] != content or row["size"] != path.stat().st_size:
        return "digest or size of something else"
    if not all(math.isfinite(value) and 0 <= value <= 1 for value in row["tags"].values()) or len(row["tags"]) != 5:
        return f"tags {row['tags']}"
    # No format here has more than a second in a byte, whatever its header says.
    return "" if 0 < row["duration_s"] <= row["size"] else f"a duration of {row['duration_s']} s"


if __name__ == "__main__":
    main()
