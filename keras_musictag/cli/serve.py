"""The command `serve`: a web page that tags audio."""

from __future__ import annotations

import contextlib
import signal
import threading
import webbrowser

import click

from ..models.registry import DEFAULT_MODEL
from .common import import_backend_for, main, runtime_option
from .completers import complete_model
from .standard_error import progress_only


@main.command(short_help="Serve a web page that tags audio.")
@click.option(
    "--model",
    "-m",
    "models",
    multiple=True,
    shell_complete=complete_model,
    help=f"Model to offer, repeatable; the first is preselected.  [default: all, {DEFAULT_MODEL} first]",
)
@runtime_option
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; 0.0.0.0 accepts connections from other machines.",
)
@click.option("--port", "-p", type=click.IntRange(1, 65535), help="Port.  [default: the first free one from 7860]")
@click.option(
    "--max-mb",
    type=click.FloatRange(min=0, min_open=True),
    default=50,
    show_default=True,
    help="Maximum size of a file in MB.",
)
@click.option(
    "--max-minutes",
    type=click.FloatRange(min=0, min_open=True),
    default=10,
    show_default=True,
    help="Maximum length in minutes; the rest is ignored.",
)
@click.option("--open/--no-open", "open_page", default=False, help="Open the page in the browser.")
def serve(
    models: tuple[str, ...],
    runtime: str | None,
    host: str,
    port: int | None,
    max_mb: float,
    max_minutes: float,
    open_page: bool,
) -> None:
    """Serve a web page that tags uploaded and recorded audio, until Ctrl-C.

    The page compares models, shows the tags at the player's position, and offers JSON and CSV. Uploads are deleted when
    the page is closed. It works without internet, except for models that are not on this machine yet.
    """
    import_backend_for(models or [DEFAULT_MODEL], runtime)
    from ..apps.serving import Limits, TaggingService, serving

    service = TaggingService(models, runtime=runtime, limits=Limits(megabytes=max_mb, minutes=max_minutes))
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:
        # Service managers send SIGTERM; handled like Ctrl-C, so that uploads are deleted.
        stack.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, signal.default_int_handler))
        with progress_only():  # models are loaded and run while the page is open
            url = stack.enter_context(serving(service, host=host, port=port))
            click.echo(f"{url}  (Ctrl-C stops it)", err=True)
            if open_page:
                webbrowser.open(url)
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait()
