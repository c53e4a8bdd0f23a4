"""The web page and its server, with Gradio.

Uploads are private: they are stored in a private temporary folder under names that cannot be guessed, and deleted when
the user closes the page, at the latest after 15 minutes, and when the server stops. Nothing is sent to or loaded from
other servers: no analytics, no fonts, no scripts.
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...audio.demo import demo_clip
from ...errors import MissingExtraError, MusicTagError
from .live_tagging import LiveTagging
from .tagging_service import TaggingService

if TYPE_CHECKING:
    import gradio

_CLEAN_EVERY, _MAX_AGE = 60, 900  # seconds: how often old uploads are deleted, and from what age
_MAX_CONCURRENT = 2  # requests: one is decoded while the network runs on another
_NONE = "none"
_PIECE_SECONDS = 0.5  # of audio that the microphone sends at a time
_MAX_SECONDS = 3600  # of a recording
_PORTS = range(7860, 7960)  # tried in order by default; the same as Gradio's

# The page may load nothing from other servers: Gradio 6.10 fetched a script from one.
_POLICY = b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"


class ServeError(MusicTagError, OSError):
    """The server cannot listen on the address or port."""


class _Uploads:
    """The files of each session, to delete them when the session ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sessions: dict[str | None, set[Path]] = {}

    def keep(self, session: str | None, path: Path) -> None:
        with self._lock:
            # Programs that use the page's API never end their session; Gradio deletes their old files.
            left = {name: {path for path in paths if path.exists()} for name, paths in self._sessions.items()}
            self._sessions = {name: paths for name, paths in left.items() if paths}
            self._sessions.setdefault(session, set()).add(path)

    @staticmethod
    def delete_piece(path: Path) -> None:
        """Delete a piece of a recording that was just used, and its folder."""
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            path.parent.rmdir()

    def delete(self, session: str | None) -> None:
        with self._lock:
            # Gradio stores the same file of two users under one path.
            paths = self._sessions.pop(session, set()).difference(*self._sessions.values())
        for path in paths:
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # the folder has another file of the same content
                path.parent.rmdir()


class _Events:
    """What the page does when the user drops a file, records, or leaves; `request` names the session."""

    def __init__(self, service: TaggingService) -> None:
        self._service = service
        self._uploads = _Uploads()
        self._live = LiveTagging(service)

    def tag(self, path: str | None, model: str, second: str, request: Any) -> dict[str, Any] | None:
        if path is None:
            return None
        self._uploads.keep(request.session_hash, Path(path))
        return self._service.answer(path, [model, second] if second != _NONE else [model])

    def listen(self, piece: str | None, model: str, request: Any) -> str:
        if piece is None:
            return ""
        try:
            return self._live.add(request.session_hash, piece, model)
        finally:
            self._uploads.delete_piece(Path(piece))

    def stop(self, request: Any) -> None:
        self._live.end(request.session_hash)

    def forget(self, request: Any) -> None:
        self._live.end(request.session_hash)
        self._uploads.delete(request.session_hash)


class _PolicyMiddleware:
    """ASGI middleware that sends the policy with every response."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"content-security-policy", _POLICY)]
            await send(message)

        await self.app(scope, receive, with_policy)


@contextlib.contextmanager
def serving(service: TaggingService, *, host: str = "127.0.0.1", port: int | None = None) -> Iterator[str]:
    """Serve the page while the block runs.

    Args:
        service: answers the requests of the page.
        host: address to listen on. Addresses other than the default admit other machines, without a password.
        port: port to listen on; by default the first free one from 7860.

    Yields:
        Address of the page.

    Raises:
        ServeError: the address or the port is not available.
        MissingExtraError: Gradio is not installed.
        MusicTagError: the first model cannot be loaded.
    """
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", GRADIO_RUN_HISTORY="False", HF_HUB_DISABLE_TELEMETRY="1")
    port = _free_port(host, port)
    gradio = _import_gradio()
    from starlette.middleware import Middleware

    service.warm_up()
    with tempfile.TemporaryDirectory(prefix="keras_musictag-serve-", ignore_cleanup_errors=True) as folder:
        before = os.environ.get("GRADIO_TEMP_DIR")
        os.environ["GRADIO_TEMP_DIR"] = folder  # folder of uploads, which only this user may read
        page = build(service)
        try:
            _, url, _ = page.launch(
                server_name=host,
                server_port=port,
                max_file_size=round(service.limits.megabytes * 1e6),
                app_kwargs={"middleware": [Middleware(_PolicyMiddleware)]},
                allowed_paths=[str(demo_clip())],
                prevent_thread_lock=True,
                quiet=True,
                inbrowser=False,
                share=False,
                ssr_mode=False,
                enable_monitoring=False,
                mcp_server=False,
                pwa=False,
                footer_links=[],
                theme=gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
                css=_read_text("page.css"),
            )
            yield url
        finally:
            page.close(verbose=False)
            os.environ.pop("GRADIO_TEMP_DIR")
            if before is not None:
                os.environ["GRADIO_TEMP_DIR"] = before


def build(service: TaggingService) -> gradio.Blocks:
    """Build the page, without serving it.

    Raises:
        MissingExtraError: Gradio is not installed.
    """
    gradio = _import_gradio()
    events = _Events(service)
    # Gradio passes the request to functions with this annotation.
    for function in (_Events.tag, _Events.listen, _Events.stop, _Events.forget):
        function.__annotations__["request"] = gradio.Request

    with gradio.Blocks(
        title="keras_musictag", analytics_enabled=False, fill_width=True, delete_cache=(_CLEAN_EVERY, _MAX_AGE)
    ) as page:
        gradio.Markdown(
            f"# keras_musictag\nDrop a song, up to {service.limits.megabytes:g} MB. The first "
            f"{service.limits.minutes:g} minutes are tagged, on the machine that serves this page; the file is deleted "
            "when you leave."
        )
        with gradio.Row():
            with gradio.Column(scale=3, min_width=320):
                audio = gradio.Audio(
                    sources=["upload", "microphone"],
                    type="filepath",
                    label="Audio",
                    elem_id="sound",
                    editable=False,
                    buttons=[],
                    waveform_options=gradio.WaveformOptions(show_recording_waveform=False),
                )
                clip = gradio.Button("Try the bundled clip", size="sm")
            with gradio.Column(scale=2, min_width=240):
                choices = _choices(service)
                model = gradio.Dropdown(choices, value=service.models[0], label="Model", elem_id="model")
                second = gradio.Dropdown(
                    [(_NONE, _NONE), *choices], value=_NONE, label="Compare with", elem_id="second"
                )
        answer = gradio.HTML(html_template="<div></div>", js_on_load=_read_text("page.js"), elem_id="answer")
        _add_live_part(gradio, events, model)
        clip.click(lambda: str(demo_clip()), outputs=audio, api_visibility="private")
        gradio.on(
            [audio.change, model.change, second.change],
            events.tag,
            [audio, model, second],
            answer,
            api_name="tag",
            trigger_mode="always_last",
            concurrency_limit=_MAX_CONCURRENT,
        )
        page.unload(events.forget)
    return page.queue(max_size=service.limits.waiting)


def _add_live_part(gradio: Any, events: _Events, model: gradio.Dropdown) -> None:
    """Add the folded part of the page that tags what the microphone records."""
    with gradio.Accordion("Live: tags while the microphone records", open=False, elem_id="live-part"):
        microphone = gradio.Audio(
            sources=["microphone"],
            streaming=True,
            type="filepath",
            label="Microphone",
            elem_id="microphone",
            waveform_options=gradio.WaveformOptions(show_recording_waveform=False),
        )
        live_answer = gradio.HTML(elem_id="live")
    microphone.start_recording(events.stop, api_visibility="private")
    microphone.stop_recording(events.stop, api_visibility="private")
    microphone.stream(
        events.listen,
        [microphone, model],
        live_answer,
        stream_every=_PIECE_SECONDS,
        time_limit=_MAX_SECONDS,
        concurrency_limit=_MAX_CONCURRENT,
        show_progress="hidden",
        api_visibility="private",
    )


def _choices(service: TaggingService) -> list[tuple[str, str]]:
    """Return the entries of the menus, grouped by vocabulary, as text and model.

    Gradio's menus have no headings, so each entry names its vocabulary if there are several.
    """
    groups = service.groups
    return [
        (f"{model}  ({title})" if len(groups) > 1 else model, model)
        for title, models in groups.items()
        for model in models
    ]


def _import_gradio() -> Any:
    try:
        import gradio
    except ImportError as error:
        raise MissingExtraError("gradio", "demo", "The page") from error
    return gradio


def _read_text(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _free_port(host: str, port: int | None) -> int:
    """Return `port`, or the first free port by default.

    Raises:
        ServeError: the port is in use or not allowed, or the host is not this machine.
    """
    problem: OSError | None = None
    for candidate in _PORTS if port is None else [port]:
        try:
            with contextlib.closing(socket.create_server((host, candidate), reuse_port=False)):
                return candidate
        except OSError as error:
            problem = error
    where = f"port {port}" if port is not None else f"any port from {_PORTS[0]} to {_PORTS[-1]}"
    raise ServeError(
        f"Cannot listen on {where} of {host!r}: {problem}. Choose another port, and an address of this machine."
    ) from problem
