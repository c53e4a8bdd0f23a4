"""Tag recordings live: a thread per session feeds pieces of audio to `stream`."""

from __future__ import annotations

import html
import queue
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from ...audio import reading as audio
from ...errors import MusicTagError
from .tagging_service import TaggingService

if TYPE_CHECKING:
    from ...tagging.base_tagger import BaseTagger

WINDOW_SECONDS = 3.0  # maximum window, so that the page responds soon
_IDLE_SECONDS = 60.0  # without audio, after which a session ends
_MAX_QUEUED = 20  # pieces; if more wait, audio comes faster than it is tagged
_ROWS = 10  # tags shown
_RATE = 48_000  # Hz; pieces are decoded to it, and browsers record at it


class LiveSession:
    """One recording: takes pieces of audio, and keeps the newest result.

    Attributes:
        model: name of the model.
        error: why the session ended; empty if it did not fail.
    """

    def __init__(self, model: str, tagger: BaseTagger) -> None:
        """Start the thread."""
        self.model = model
        self.error = ""
        self._tagger = tagger
        self._pieces: queue.Queue[np.ndarray | None] = queue.Queue(_MAX_QUEUED)
        self._newest: tuple[float, np.ndarray] | None = None
        self._n_samples = 0  # samples
        self._thread = threading.Thread(target=self._run, daemon=True, name="keras_musictag-live")
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the session accepts more audio."""
        return self._thread.is_alive()

    def push(self, piece: np.ndarray) -> None:
        """Add the next samples `(samples,)` at `_RATE`; drop them if too many pieces wait."""
        try:
            self._pieces.put_nowait(piece)
            self._n_samples += len(piece)
        except queue.Full:
            self.error = "The audio comes faster than this machine can tag it; parts were left out."

    def close(self) -> None:
        """End the session; pieces that wait are dropped."""
        while True:
            try:
                self._pieces.put_nowait(None)
                return
            except queue.Full:
                self._pieces.get_nowait()

    def as_html(self) -> str:
        """Return the newest result as an HTML table, or a message until there is one; names are escaped."""
        note = f'<p class="problem">{html.escape(self.error)}</p>' if self.error else ""
        if self._newest is None:
            return note or f'<p class="hint">Listening: {self._n_samples / _RATE:.0f} s recorded.</p>'
        time, row = self._newest
        cells = []
        for column in np.argsort(-row, kind="stable")[:_ROWS]:
            cells.append(
                f'<span class="tag">{html.escape(self._tagger.names[column])}</span>'
                f'<span class="bar"><i class="fill" style="width:{100 * row[column]:.1f}%"></i></span>'
                f'<span class="number">{row[column]:.3f}</span>'
            )
        title = f"{html.escape(self.model)}, {time:.1f} s"
        return f'{note}<section class="result"><h3>{title}</h3><div class="rows">{"".join(cells)}</div></section>'

    def _run(self) -> None:
        window = min(WINDOW_SECONDS, self._tagger.spec.taggram_seconds or self._tagger.spec.window_seconds)
        try:
            for row in self._tagger.stream(self._blocks(), _RATE, window_seconds=window):
                self._newest = row
        except MusicTagError as error:
            self.error = str(error)

    def _blocks(self) -> Iterator[np.ndarray]:
        while True:
            try:
                piece = self._pieces.get(timeout=_IDLE_SECONDS)
            except queue.Empty:
                return
            if piece is None:
                return
            yield piece


class LiveTagging:
    """The recordings of all users, by session."""

    def __init__(self, service: TaggingService) -> None:
        """Load nothing yet."""
        self._service = service
        self._sessions: dict[str | None, LiveSession] = {}
        self._lock = threading.Lock()

    def add(self, session: str | None, path: str, model: str) -> str:
        """Add a piece of a recording, in a file; return the HTML to show.

        A session starts with the first piece, and with a change of the model.
        """
        try:
            tagger = self._service.tagger(model)
            piece = audio.load(path, target_sr=_RATE)
        except MusicTagError as error:
            return f'<p class="problem">{html.escape(str(error))}</p>'
        with self._lock:
            live = self._sessions.get(session)
            if live is None or live.model != model or not live.alive:
                if live is not None:
                    live.close()
                live = self._sessions[session] = LiveSession(model, tagger)
        live.push(piece)
        return live.as_html()

    def end(self, session: str | None) -> None:
        """End a session, when its recording stops or its page is closed."""
        with self._lock:
            live = self._sessions.pop(session, None)
        if live is not None:
            live.close()

    def end_all(self) -> None:
        """End all sessions, when the server stops."""
        for session in list(self._sessions):
            self.end(session)
