"""Tags while a microphone records: each user's pieces of sound go through `stream` in a thread of their own."""

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
    from ...tagging.base import BaseTagger

WINDOW_SECONDS = 3.0  # that a row hears, or the model's own if they are shorter: a page should answer soon
_IDLE_SECONDS = 60.0  # without sound, after which a session ends
_WAITING = 20  # pieces; with more, the sound comes faster than it is tagged
_ROWS = 10  # tags shown
_RATE = 48_000  # that pieces are decoded to; what browsers record at


class LiveSession:
    """One recording: pieces of sound in, the newest row out.

    Attributes:
        model: name of the model.
        error: why it ended, or empty.
    """

    def __init__(self, model: str, tagger: BaseTagger) -> None:
        """Start the thread."""
        self.model = model
        self.error = ""
        self._tagger = tagger
        self._pieces: queue.Queue[np.ndarray | None] = queue.Queue(_WAITING)
        self._newest: tuple[float, np.ndarray] | None = None
        self._heard = 0  # samples
        self._thread = threading.Thread(target=self._run, daemon=True, name="keras_musictag-live")
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it takes more sound."""
        return self._thread.is_alive()

    def push(self, piece: np.ndarray) -> None:
        """Add the next samples `(samples,)` at `_RATE`; they are dropped if too many wait."""
        try:
            self._pieces.put_nowait(piece)
            self._heard += len(piece)
        except queue.Full:
            self.error = "The sound comes faster than this machine tags it; parts were left out."

    def close(self) -> None:
        """End it; what waits is not tagged any more."""
        while True:
            try:
                self._pieces.put_nowait(None)
                return
            except queue.Full:
                self._pieces.get_nowait()

    def as_html(self) -> str:
        """The newest row as a table, or what there is to say until there is one. Names are escaped."""
        note = f'<p class="problem">{html.escape(self.error)}</p>' if self.error else ""
        if self._newest is None:
            return note or f'<p class="hint">Listening: {self._heard / _RATE:.0f} s heard.</p>'
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
        """Nothing is loaded yet."""
        self._service = service
        self._sessions: dict[str | None, LiveSession] = {}
        self._lock = threading.Lock()

    def add(self, session: str | None, path: str, model: str) -> str:
        """Take a piece of a recording, as a file; returns what the page is to show.

        A new session begins with the first piece, and with another model.
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
        """The recording stopped, or its page was closed."""
        with self._lock:
            live = self._sessions.pop(session, None)
        if live is not None:
            live.close()

    def end_all(self) -> None:
        """The server stops."""
        for session in list(self._sessions):
            self.end(session)
