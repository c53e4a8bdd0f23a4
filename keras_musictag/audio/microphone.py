"""Record from a sound card with `sounddevice` (extra `live`)."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import AudioNotFoundError, MissingExtraError

_WAITING_SECONDS = 10.0  # maximum of audio waiting to be read; further audio is lost, with a note


@contextlib.contextmanager
def recording(
    sr: int | None = None,
    *,
    channels: int = 1,
    device: str | int | None = None,
    block_seconds: float = 0.1,
    notes: list[str] | None = None,
) -> Iterator[tuple[int, Iterator[np.ndarray]]]:
    """Record audio while the `with` block runs.

    Args:
        sr: sample rate in Hz; by default that of the device.
        channels: number of channels.
        device: number of the device or a part of its name, as listed by `python -m sounddevice`; by default that of the
            system.
        block_seconds: approximate duration of a block.
        notes: list to which a sentence is added at the end if audio was lost.

    Yields:
        The rate in Hz, and an endless iterator over float32 blocks `(channels, samples)`, for `Tagger.stream`.

    Raises:
        MissingExtraError: `sounddevice` is not installed.
        AudioNotFoundError: the PortAudio library is missing, or the device cannot be opened with these settings.
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
            yield rate, _blocks(waiting)
    finally:
        if lost and notes is not None:
            notes.append(f"{lost} blocks of {block_seconds:g} s were lost: tagging was slower than the recording.")


def _blocks(waiting: queue.Queue[np.ndarray]) -> Iterator[np.ndarray]:
    while True:
        with contextlib.suppress(queue.Empty):
            yield waiting.get(timeout=0.5)  # without a timeout, Ctrl-C has no effect on Windows


def _import_sounddevice() -> Any:
    try:
        import sounddevice
    except ImportError as error:
        raise MissingExtraError("sounddevice", "live", "Recording from a microphone") from error
    except OSError as error:  # the PortAudio library is missing
        raise AudioNotFoundError(
            f"Recording needs the PortAudio library: {error}. Install it, e.g. apt install libportaudio2."
        ) from error
    return sounddevice
