"""Recording from a sound card, with `sounddevice` (extra `live`)."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import AudioNotFoundError, MissingExtraError

_WAITING_SECONDS = 10.0  # recorded and not yet asked for; what comes after that is lost, and it is said


@contextlib.contextmanager
def recording(
    sr: int | None = None,
    *,
    channels: int = 1,
    device: str | int | None = None,
    block_seconds: float = 0.1,
    notes: list[str] | None = None,
) -> Iterator[tuple[int, Iterator[np.ndarray]]]:
    """Record as long as the block runs.

    Args:
        sr: sample rate in Hz; by default the device's own.
        channels: how many to record.
        device: its number or a part of its name, as `python -m sounddevice` lists them; by default the system's.
        block_seconds: sound in a block, about.
        notes: list that gets a sentence at the end if sound was lost.

    Yields:
        The rate in Hz, and an iterator without end over float32 blocks `(channels, samples)`, for `Tagger.stream`.

    Raises:
        MissingExtraError: `sounddevice` is not installed.
        AudioNotFoundError: there is no PortAudio library, or the device cannot be opened with these settings.
    """
    sounddevice = _import_sounddevice()
    device = int(device) if isinstance(device, str) and device.isdigit() else device
    lost = 0

    def keep(frames: np.ndarray, count: int, _time: Any, status: Any) -> None:
        nonlocal lost
        if status and getattr(status, "input_overflow", False):
            lost += 1
        try:
            waiting.put_nowait(frames.T.copy())
        except queue.Full:
            lost += 1

    try:
        rate = int(sr or sounddevice.query_devices(device, "input")["default_samplerate"])
        size = max(1, round(block_seconds * rate))
        waiting: queue.Queue[np.ndarray] = queue.Queue(max(1, round(_WAITING_SECONDS / block_seconds)))
        microphone = sounddevice.InputStream(
            samplerate=rate, channels=channels, device=device, dtype="float32", blocksize=size, callback=keep
        )
    except (sounddevice.PortAudioError, ValueError) as error:
        raise AudioNotFoundError(
            f"Cannot record {channels} channel(s) from {'the default device' if device is None else repr(device)}: "
            f"{error}. `python -m sounddevice` lists the devices."
        ) from error
    try:
        with microphone:
            yield rate, _each(waiting)
    finally:
        if lost and notes is not None:
            notes.append(f"{lost} blocks of {block_seconds:g} s were lost: the sound came faster than it was tagged.")


def _each(waiting: queue.Queue[np.ndarray]) -> Iterator[np.ndarray]:
    while True:
        with contextlib.suppress(queue.Empty):
            yield waiting.get(timeout=0.5)  # without one, Ctrl-C could not end it on Windows


def _import_sounddevice() -> Any:
    try:
        import sounddevice
    except ImportError as error:
        raise MissingExtraError("sounddevice", "live", "Recording from a microphone") from error
    except OSError as error:  # the package is there, its C library is not
        raise AudioNotFoundError(
            f"Recording needs the PortAudio library: {error}. Install it, e.g. apt install libportaudio2."
        ) from error
    return sounddevice
