"""Ctrl-C in tests."""

import contextlib
import signal


@contextlib.contextmanager
def usual_ctrl_c():
    """The usual answer to Ctrl-C for this process and those it starts, also where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
