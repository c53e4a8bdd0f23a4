"""Taggers in other processes: forked workers say what to do or just work, and never hang."""

import concurrent.futures
import copy
import multiprocessing
import os
import pickle

import numpy as np
import pytest

import keras_musictag as kmt
from keras_musictag.errors import ForkedProcessError
from keras_musictag.tagging.runtimes import is_installed

TIMEOUT = 60  # seconds, after which a worker counts as hanging; they answer within one
REFUSED = r"forked from it.*get_context\('spawn'\).*runtime='onnxruntime'"

pytestmark = [
    pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="there is no fork here"),
    # Python 3.12 and newer warn about just what is tested here.
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:os.fork.. was called:RuntimeWarning"),
]

SR = 16_000
SOUNDS = [(0.5 * np.sin(2 * np.pi * f * np.arange(2 * SR) / SR).astype("float32"), SR) for f in (440.0, 880.0)]


def in_pool(function, items):
    """Results of two forked workers."""
    pool = multiprocessing.get_context("fork").Pool(2)
    try:
        return pool.map_async(function, items).get(TIMEOUT)
    finally:
        pool.terminate()


def in_executor(function, items):
    context = multiprocessing.get_context("fork")
    pool = concurrent.futures.ProcessPoolExecutor(2, mp_context=context)
    workers = []
    try:
        futures = [pool.submit(function, item) for item in items]
        workers = list(pool._processes.values())
        return [future.result(TIMEOUT) for future in futures]
    finally:
        for worker in workers:  # one that hangs would be waited for
            worker.kill()
        pool.shutdown(wait=False, cancel_futures=True)


class Sounds:
    """What PyTorch's DataLoader takes: items are tagged in its workers."""

    def __init__(self, function, items):
        self.function, self.items = function, items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, number):
        return self.function(self.items[number])


def in_data_loader(function, items):
    data = pytest.importorskip("torch.utils.data")
    sounds = Sounds(function, items)
    return [
        batch[0]
        for batch in data.DataLoader(
            sounds, num_workers=2, timeout=TIMEOUT, collate_fn=list, multiprocessing_context="fork"
        )
    ]


WAYS = pytest.mark.parametrize("way", [in_pool, in_executor, in_data_loader])


@pytest.fixture(scope="module")
def tiny():
    tagger = kmt.load("tiny")
    tagger.tag(*SOUNDS[0])
    return tagger


@WAYS
def test_a_fork_does_not_hang_on_keras(tiny, way):
    with pytest.raises(ForkedProcessError, match=REFUSED):
        way(tiny.tag, SOUNDS)


def embed(sound):
    return kmt.load("tiny").embed(*sound)


def tag_many(sound):
    return list(INHERITED.tag_many([sound]))


INHERITED = None


@pytest.mark.parametrize("function", [embed, tag_many])
def test_nor_on_what_it_has_inherited_or_loads(tiny, function):
    global INHERITED
    INHERITED = tiny
    with pytest.raises(ForkedProcessError, match=REFUSED):
        in_pool(function, SOUNDS)


def test_afterwards_the_parent_goes_on(tiny):
    assert max(tiny.tag(*SOUNDS[0]).items(), key=lambda item: item[1])[0] == "tone"


@pytest.fixture(scope="module", params=["onnxruntime", "openvino", "litert"])
def exported(request, tmp_path_factory):
    if not is_installed(request.param):
        pytest.skip(f"{request.param} is not installed")
    patch = pytest.MonkeyPatch()
    patch.setenv("KERAS_MUSICTAG_CACHE", str(tmp_path_factory.mktemp("cache")))
    try:
        tagger = kmt.load("tiny", runtime=request.param)
    finally:
        patch.undo()
    return tagger


@WAYS
def test_exported_taggers_survive_a_fork(exported, way):
    expected = [exported.tag(*sound) for sound in SOUNDS]
    assert way(exported.tag, SOUNDS) == expected
    assert [exported.tag(*sound) for sound in SOUNDS] == expected


def inherited_tag(sound):
    return os.getpid(), INHERITED.tag(*sound)


def test_exported_taggers_can_be_inherited(exported):
    global INHERITED
    INHERITED = exported
    found = in_pool(inherited_tag, SOUNDS)
    assert [tags for _, tags in found] == [exported.tag(*sound) for sound in SOUNDS]
    assert os.getpid() not in {process for process, _ in found}


def test_pickled_taggers_tag_the_same(tiny, exported):
    for tagger in (tiny, exported):
        again = pickle.loads(pickle.dumps(tagger))
        assert again.tag(*SOUNDS[0]) == pytest.approx(tagger.tag(*SOUNDS[0]), abs=1e-6)
        assert again.tags == tagger.tags and repr(again) == repr(tagger)


def test_a_shallow_copy_shares_the_network(tiny):
    assert copy.copy(tiny).core is tiny.core
