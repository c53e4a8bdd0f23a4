"""A small library, broken files for it, and a decoder that misbehaves with files of certain names."""

import ctypes
import os
import subprocess
import sys
import time

import numpy as np
import soundfile

from keras_musictag.audio import reading as audio


def sound(path, seconds=0.5, pitch=0.1):
    """Write a sound that no other pitch gives."""
    t = np.arange(round(seconds * 16_000))
    soundfile.write(path, 0.3 * np.sin(pitch * t) + 0.01 * np.random.default_rng(len(t)).normal(size=len(t)), 16_000)
    return path


def sounds(folder, count):
    """A folder with sounds of different lengths and pitches."""
    folder.mkdir(exist_ok=True)
    return [sound(folder / f"{number:03}.wav", 0.2 + number % 7, 0.02 + 0.01 * number) for number in range(count)]


_spoilt = []


def misbehave(path, **options):
    """`audio.stream`, but for what the name of a file asks for."""
    name = os.path.basename(path)
    if _spoilt:
        yield next(iter(audio.stream(path, **options)))
        ctypes.string_at(0)
    if name.startswith("spoils"):
        _spoilt.append(name)
    if name.startswith("segfault"):
        ctypes.string_at(0)
    if name.startswith("exit"):
        os._exit(7)
    if name.startswith("memory"):
        np.zeros(2**36)
    if name.startswith("hang"):
        time.sleep(1000)
    if name.startswith("bug"):
        raise KeyError("no such box")
    if name.startswith("slow"):
        time.sleep(0.3)
    if name.startswith("long"):  # four hours
        second = np.random.default_rng(0).uniform(-0.5, 0.5, options["target_sr"]).astype("float32")
        for _ in range(4 * 3600):
            yield second
        return
    for block in audio.stream(path, **options):
        yield block
        if name.startswith("grows"):
            with open(path, "ab") as file:
                file.write(b"\0\0")
        if name.startswith("late"):
            ctypes.string_at(0)


# A run whose network is one line of NumPy, so that its process starts in no time: no backend is imported.
RUN = """
import resource, signal, sys, time, types
import numpy as np
from keras_musictag.models import registry
from keras_musictag.apps.library import local_engine as run
from keras_musictag.apps.library import pool

def network(tagger, embeddings):
    time.sleep(float(sys.argv[3]))  # what is decoded meanwhile has to wait
    return lambda windows: np.abs(windows[:, :5])

spec = registry.model_info("tiny")
tagger = types.SimpleNamespace(spec=spec, tags=spec.tags, weights_sha256=spec.weights.sha256)
pool._STREAM, run.network = "library_files:misbehave", network
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests run in the background
if int(sys.argv[4]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]), int(sys.argv[4])))
print(run.tag_library(sys.argv[1], sys.argv[2], tagger, workers=2, timeout=20))
if sys.platform == "linux":  # megabytes; `ru_maxrss` of this process would be that of the one it was forked from
    (peak,) = (int(line.split()[1]) // 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(peak, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
"""


def start(music, out, *, before=0.0, largest=0):
    """Start `RUN` in a process group of its own.

    Args:
        before: seconds that building the network takes.
        largest: bytes that a file may have, 0 for any number: the disk is full.
    """
    command = [sys.executable, "-c", RUN, str(music), str(out), str(before), str(largest)]
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(__file__)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment, start_new_session=True)
