"""Standard error: what C libraries write there is held back, and shown only if something fails."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import IO, TypeVar

from ..errors import MusicTagError

LOG_LEVEL, QUIET = "TF_CPP_MIN_LOG_LEVEL", "3"  # TensorFlow's variable; 3: fatal errors only

_MESSAGES_WANTED = os.environ.get(LOG_LEVEL, QUIET) < QUIET  # set by the user: read before JAX sets it

_Result = TypeVar("_Result")


@contextlib.contextmanager
def stderr_on_failure(expected: type[Exception] | tuple[()] = ()) -> Iterator[None]:
    """Hold back what C libraries write to file descriptor 2, and show it only if the block fails unexpectedly.

    Nothing is held back if the user has set `TF_CPP_MIN_LOG_LEVEL` to 0, 1 or 2.
    """
    if _MESSAGES_WANTED:
        yield
        return
    try:
        original = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    held: IO[bytes]
    with tempfile.TemporaryFile() as held:
        sys.stderr.flush()
        os.dup2(held.fileno(), 2)
        try:
            yield
        except expected:
            raise
        except BaseException:
            held.seek(0)
            os.write(original, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(original, 2)
            os.close(original)


def quietly(results: Iterator[_Result]) -> Iterator[_Result]:
    """Yield results; while each is computed, hold back what C libraries write, as `stderr_on_failure` does."""
    while True:
        with stderr_on_failure():
            try:
                result = next(results)
            except StopIteration:
                return
        yield result


@contextlib.contextmanager
def progress_only() -> Iterator[None]:
    """Hold back what C libraries write to file descriptor 2, as `stderr_on_failure` does, but not Python's output.

    For long work with a progress bar on standard error.
    """
    if _MESSAGES_WANTED:
        yield
        return
    try:
        ours = sys.stderr.fileno() == 2
    except (AttributeError, OSError, ValueError):  # closed, or replaced by an object that is not a file
        ours = False
    if not ours:
        with stderr_on_failure(expected=MusicTagError):
            yield
        return
    sys.stderr.flush()
    with (
        os.fdopen(os.dup(2), "w", encoding=sys.stderr.encoding, errors="replace", buffering=1) as terminal,
        stderr_on_failure(expected=MusicTagError),
        contextlib.redirect_stderr(terminal),
    ):
        yield
