"""Run all stages on one machine: `tag_library`."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import datetime
import functools
import math
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...models.registry import DEFAULT_MODEL
from ...models.spec import ModelSpec
from ...models.vocabulary import Vocabulary
from ...tagging.choosing import Threshold, chosen_columns
from ...utils.checks import check_count
from ...utils.cores import available_cores
from . import listing, output, write_back
from .batching import Batcher, batch_size, network
from .cue_and_chapters import Segment, file_of, is_segment
from .decoding import Job, Opened
from .importing import ImportedRows
from .journal import Journal, OutputLock, RowStore
from .library_rows import TRANSIENT, LibraryError, LibraryRow, Revision, readable
from .listing import Listed, Listing, Sources
from .pool import DecodeWorkers
from .spare_resources import OtherPrograms
from .summary import LibrarySummary
from .tag_plans import WriteOptions, check_known
from .work import Done, work

if TYPE_CHECKING:
    from ...tagging.base_tagger import BaseTagger

TIMEOUT = 600.0  # seconds


def tag_library(
    sources: Sources,
    out: str | os.PathLike[str],
    tagger: BaseTagger | str | os.PathLike[str] = DEFAULT_MODEL,
    *,
    top: int | None = None,
    threshold: Threshold = 0.0,
    unsure: bool = False,
    kinds: Collection[str] | None = None,
    embeddings: bool = False,
    workers: int | None = None,
    timeout: float = TIMEOUT,
    chapters: bool = False,
    pause_on_load: float | None = None,
    imports: Sequence[str | os.PathLike[str]] = (),
    resume: bool = True,
    update: bool = False,
    write_tags: WriteOptions | None = None,
    dry_run: bool = True,
    undo_file: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> LibrarySummary:
    """Tag all files of a library; each file gets a row with its tags or with the error.

    Rows are written as they come. However a run ends, the same call resumes it: a file is skipped if the same content
    has a row of the same model. Files with a transient error (unreadable, timeout, crash, ...) are tried again.

    Args:
        sources: folders, audio files, lists and tables of paths, or a `Manifest`; see `listing.find`.
        out: output, `.jsonl`, `.csv` or `.parquet`. For the latter two, rows are collected in `OUT.rows.jsonl`, and
            the output is written at the end of the run, also after Ctrl-C or an error.
        tagger: a `Tagger` or `ExportedTagger` with weights from a file, or an argument for `load`.
        top: number of tags to keep per file.
        threshold: minimum probability of tags to keep; `"auto"` for the thresholds in the spec, as in `Tagger.tag`.
        unsure: with `"auto"`: keep no tag if none reaches its threshold, instead of the most probable one.
        kinds: keep tags of these kinds only, as in `Tagger.tag`.
        embeddings: also keep the embeddings.
        workers: number of decoding processes; by default, one per core.
        timeout: maximum seconds for decoding a file.
        chapters: make a row for each chapter of m4b, m4a, mp4 and mka files, instead of one for the file.
        pause_on_load: start no file while other programs use more than this many cores.
        imports: other tables; their rows are copied for files with the same content.
        resume: continue an existing table instead of deleting it.
        update: tag files again that changed or failed, or whose rows are of another model or other settings.
        write_tags: which tags to write into the files' metadata; see `write_back`. `undo_library` restores the files.
        dry_run: only report the changes of `write_tags`.
        undo_file: file that stores the old metadata; by default `OUT.undo.jsonl`.
        progress: show progress bars on standard error.

    Returns:
        `LibrarySummary`.

    Raises:
        LibraryError: a source does not exist; the output cannot be written, is being written by another run or is of
            another model; or the disk is full.
        WeightsError, SpecError, UnknownModelError: as `load`.
        MissingExtraError: pyarrow is not installed (for Parquet), or mutagen (for `write_tags`).
        ValueError: a number is out of range; a kind is unknown, or the model's tags have no kinds.

    Example:
        >>> import tempfile, keras_musictag as kmt
        >>> out = tempfile.mkdtemp() + "/tags.jsonl"
        >>> summary = tag_library(kmt.demo_clip(), out, "tiny", workers=1)
        >>> summary.tagged, tag_library(kmt.demo_clip(), out, "tiny").skipped
        (1, 1)
    """
    begun = time.monotonic()
    check_numbers({"top": top, "workers": workers}, threshold, timeout)
    out = Path(os.path.abspath(out))
    output.check(out)
    undo_path = write_back.default_undo_file(out) if undo_file is None else Path(os.path.abspath(undo_file))
    if write_tags is not None:
        write_back.check()
    found = listing.find(sources, chapters=chapters, progress=progress)
    if isinstance(tagger, (str, os.PathLike)):
        from ...loading import load

        tagger = load(tagger)
    if write_tags is not None:
        check_known(tagger.spec.vocabulary, write_tags)
    revision = Revision.of(tagger, top, threshold, embeddings, kinds, unsure)
    with OutputLock(out), contextlib.closing(_open_journal(out, revision, resume)) as journal:
        write_back.update_written_rows(journal, undo_path)
        if not update:
            check_revision(out, found, journal, revision)
        choose = tag_chooser(tagger.spec, top, threshold, unsure, kinds)
        run = Run(journal, tagger.spec.vocabulary, revision, choose, update)
        run.imported = ImportedRows(imports, revision) if imports else None
        busy = (lambda: False) if pause_on_load is None else OtherPrograms(pause_on_load).busy
        written = None
        try:
            run.go(found, _local_engine(tagger, embeddings, workers or available_cores(), timeout, busy), progress)
            if write_tags is not None:
                writing = (tagger.spec.vocabulary, write_tags, None if dry_run else undo_path)
                written = write_back.write_rows(journal, found, *writing, progress=progress)
        except BaseException:
            with contextlib.suppress(LibraryError):  # the first error is the more useful one
                _finish(out, journal)
            raise
        _finish(out, journal, drop=run.obsolete(found))
        return dataclasses.replace(run.summary(out, found, time.monotonic() - begun), written=written)


def tag_chooser(
    spec: ModelSpec, top: int | None, threshold: Threshold, unsure: bool, kinds: Collection[str] | None
) -> Callable[[np.ndarray], list[int]]:
    """Return the function that chooses the tags of a file; arguments as in `tag_library`."""
    wanted = spec.vocabulary.columns(kinds=kinds)
    return lambda probabilities: chosen_columns(
        spec, probabilities, wanted, top=top, threshold=threshold, unsure=unsure
    )


def check_numbers(counts: dict[str, int | None], threshold: Threshold, timeout: float) -> None:
    """Raise `ValueError` if a number is out of range."""
    for name, value in counts.items():
        if value is not None:
            check_count(name, value)
    if threshold != "auto" and (isinstance(threshold, str) or not 0 <= threshold <= 1):
        raise ValueError(f"threshold must be a probability from 0 to 1, or 'auto'; got {threshold!r}.")
    if not 0 < timeout < math.inf:
        raise ValueError(f"timeout must be a positive number of seconds; got {timeout!r}.")


def _open_journal(out: Path, revision: Revision, resume: bool) -> Journal:
    path = output.journal_path(out)
    for written in {path, out}:
        output.remove_leftovers(written)
    if resume and out.exists() and not path.exists():
        raise LibraryError(
            f"{out} exists, but {path.name}, which lists the files done, does not. Choose another output, or start "
            "over (resume=False, --no-resume), which replaces it."
        )
    return Journal(path, revision, fresh=not resume)


def check_revision(out: Path | str, found: Listing, journal: RowStore, revision: Revision) -> None:
    """Raise `LibraryError` if the output has rows of another model or of other settings."""
    entries = (journal.entries.get(readable(listed.path)) for listed in found.files)
    others = sum(entry is not None and not entry.current for entry in entries)
    if others:
        raise LibraryError(
            f"{out} has {others} rows of another model or other settings than {revision.model} "
            f"({revision.weights_sha256[:12]}), tags {revision.tags_kept}, "
            f"{'with' if revision.embeddings else 'without'} embeddings. Choose another output, or tag them again "
            "(update=True, --update)."
        )


def _local_engine(
    tagger: BaseTagger, embeddings: bool, workers: int, timeout: float, busy: Callable[[], bool]
) -> Callable[[list[Job]], Iterator[list[Done]]]:
    """Return the function that decodes and tags files on this machine."""

    def tag_files(jobs: list[Job]) -> Iterator[list[Done]]:
        # Built for the first windows: there may be none.
        predict = functools.cache(lambda: network(tagger, embeddings))
        batcher: Batcher[Job] = Batcher(lambda windows: predict()(windows), batch_size(tagger))
        return work(jobs, DecodeWorkers(tagger.spec, min(workers, len(jobs)), timeout, busy), batcher)

    return tag_files


def _finish(out: Path, journal: Journal, drop: Iterable[str] = ()) -> None:
    """Close the journal, without the rows to drop, and write the output.

    Raises:
        LibraryError: the disk is full, or the output cannot be written.
    """
    try:
        journal.finish(drop)
        if journal.path != out:
            output.write(journal.rows(), out)
    except OSError as error:
        raise LibraryError(
            f"{out} cannot be written ({error.strerror or error}). All rows are in {journal.path}. Free some space, "
            "then run the command again."
        ) from error


class Run:
    """One run: decides which files to tag, and stores their rows.

    Args:
        journal: storage for the rows.
        vocabulary: tags of the network's first outputs.
        revision: revision of the rows.
        choose: maps the probabilities of a file to the columns of the tags to keep, the most probable first.
        update: as in `tag_library`.

    Attributes:
        imported: rows of other tables, or `None`.
    """

    imported: ImportedRows | None = None

    def __init__(
        self,
        journal: RowStore,
        vocabulary: Vocabulary,
        revision: Revision,
        choose: Callable[[np.ndarray], list[int]],
        update: bool,
    ) -> None:
        """Do nothing yet."""
        self._journal, self._tags, self._revision = journal, vocabulary.names, revision
        self._choose, self._update = choose, update
        self._n_tagged = self._n_skipped = self._n_changed = self._n_noted = self._n_imported = 0
        self._sound_seconds = 0.0
        self._segments: dict[str, Segment] = {}

    def go(self, found: Listing, work: Callable[[list[Job]], Iterable[list[Done]]], progress: bool) -> None:
        """Tag the files that have no current row.

        Args:
            found: all files.
            work: function that decodes and tags files.
            progress: show a progress bar.
        """
        from tqdm.auto import tqdm

        # No smoothing: show the rate of the whole run, since files differ in length.
        options = {"unit": "file", "delay": 2, "smoothing": 0, "miniters": 1, "disable": not progress}
        with tqdm(total=len(found.files), **options) as bar:
            jobs = []
            self._segments = {listed.path: listed.segment for listed in found.files if listed.segment}
            for listed in found.files:
                job = self._job(listed)
                if job is None:
                    bar.update()
                else:
                    jobs.append(job)
            bar.initial = bar.n  # skipped files, and the time for them, do not count in the estimate
            bar.unpause()
            self._journal.sync()
            if not jobs:
                return
            for results in work(jobs):
                for done in results:
                    self._record(done)
                self._journal.sync()
                bar.update(len(results))

    def obsolete(self, found: Listing) -> list[str]:
        """Return paths of rows to remove: files never read that no longer exist, and parts that no longer exist."""
        listed = {readable(listed.path) for listed in found.files}
        split = {readable(listed.file) for listed in found.files if listed.segment}
        folders = [readable(folder) for folder in found.folders]
        return [
            path
            for path, entry in self._journal.entries.items()
            if path not in listed
            and ((not entry.sha256 and listing.within(path, folders)) or (is_segment(path) and file_of(path) in split))
        ]

    def summary(self, out: Path | str, found: Listing, seconds: float) -> LibrarySummary:
        """Return the summary of the run."""
        kinds = (self._journal.entries[readable(listed.path)].error_kind for listed in found.files)
        return LibrarySummary(
            out=out,
            files=len(found.files),
            tagged=self._n_tagged,
            skipped=self._n_skipped,
            changed=self._n_changed,
            noted=self._n_noted,
            imported=self._n_imported,
            passed_over=found.passed_over,
            failures=collections.Counter(kind for kind in kinds if kind),
            sound_seconds=self._sound_seconds,
            seconds=seconds,
        )

    # --- Choosing files ---

    def _job(self, listed: Listed) -> Job | None:
        """Return the job for a file; `None` if there is nothing to do, or if its row could be written at once."""
        entry = self._journal.entries.get(readable(listed.path))
        if listed.kind:
            self._fail(listed.path, listed.error, listed.kind)
            return None
        fault = None if listed.state else listing.fault_of(listed.file)
        if fault is not None:
            self._fail(listed.path, *fault)
            return None
        again = entry is None or not entry.sha256 or not entry.current or entry.error_kind in TRANSIENT
        segment = listed.segment
        part: dict[str, Any] = (
            {} if segment is None else {"file": segment.file, "start": segment.start, "end": segment.end}
        )
        if entry is None or again or (self._update and entry.error_kind):
            row = None if self.imported is None else self.imported.row(listed)
            if row is not None:
                self._journal.append(row)
                self._n_imported += 1
                return None
            return Job(listed.path, **part)
        with contextlib.suppress(OSError):  # the file may just have been removed
            if (listed.state or listing.state_of(listed.file)) == (entry.size, entry.mtime):
                self._n_skipped += 1
                return None
        return Job(listed.path, known=entry.sha256, replace=self._update or bool(entry.error_kind), **part)

    # --- Storing results ---

    def _record(self, done: Done) -> None:
        if done.outputs is not None:
            self._keep(done, done.outputs)
        elif done.ended.outcome == "failed":
            self._fail(done.job.path, done.ended.error, done.ended.kind, done.opened)
        elif done.ended.outcome == "other":
            self._n_changed += 1
        elif done.opened is not None:
            self._journal.touch(readable(done.job.path), done.opened.size, done.opened.mtime)
            self._n_skipped += 1

    def _keep(self, done: Done, outputs: np.ndarray) -> None:
        path, duration = done.job.path, done.ended.duration_s
        if not np.isfinite(outputs).all():
            self._fail(path, f"The model gives NaN or infinity for {path!r}. Try another one.", "model", done.opened)
            return
        tags = self._tags
        kept = {tags[column]: round(float(outputs[column]), 6) for column in self._choose(outputs[: len(tags)])}
        features = outputs[len(tags) :]
        embedding = [float(f"{value:.6g}") for value in features] if self._revision.embeddings else None
        self._append(path, done.opened, duration_s=duration, tags=kept, embedding=embedding, notes=done.ended.notes)
        self._n_noted += bool(done.ended.notes)
        self._n_tagged += 1
        self._sound_seconds += duration or 0.0

    def _fail(self, path: str, error: str, kind: str, opened: Opened | None = None) -> None:
        entry = self._journal.entries.get(readable(path))
        if opened is None and entry is not None and entry.sha256 and entry.current:
            self._n_skipped += 1  # it cannot be read now; keep the earlier row
            return
        # Paths in messages may have surrogates, which no output can hold.
        message = error.encode("utf-8", "backslashreplace").decode()
        self._append(path, opened, error=message, error_kind=kind)

    def _append(self, path: str, opened: Opened | None, **fields: Any) -> None:
        about: dict[str, Any] = {} if opened is None else dataclasses.asdict(opened)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        segment = self._segments.get(path)
        if segment is not None:
            fields |= {"title": segment.title, "start_s": segment.start}
        row = LibraryRow(path=readable(path), tagged_at=now, **self._revision.fields(), **about, **fields)
        self._journal.append(row)
