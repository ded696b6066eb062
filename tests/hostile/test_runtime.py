"""A loaded model where it does not belong: in a fork, in a pickle, beside threads that hang."""

import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import edgekit
from edgekit.core import threads
from edgekit.core.errors import EdgekitError, UsageError
from edgekit.runtime.model import Model
from tests import bundles

FORK = """
import os, sys
import numpy as np
import edgekit
from edgekit.core.errors import UsageError

path, hint = sys.argv[1:]
images = np.zeros((3, 24, 32, 3), np.uint8)
model = edgekit.load(path, hint=hint, threads=2, cache=False)
stream = model.predict_stream(list(images))
next(stream)
for call in (lambda: model.run(images), lambda: model.predict(images), lambda: list(stream),
             lambda: next(model.predict_stream(list(images)))):
    if (child := os.fork()) == 0:
        try:
            call()
        except UsageError as error:
            print(error, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
if (child := os.fork()) == 0:
    mine = edgekit.load(path, hint=hint, threads=2, cache=False)
    print(len(list(mine.predict_stream(list(images)))), flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(len(list(stream)), len(model.predict(images)))
"""


@pytest.mark.parametrize("target", ["cpu", "onnxruntime-cpu"])
@pytest.mark.parametrize("hint", ["latency", "throughput"])
def test_a_fork_of_a_loaded_model_is_told_at_once(target: str, hint: str) -> None:
    """OpenVINO's call hung for ever there. A model loaded in the child works."""
    path = bundles.bundle(target)
    done = subprocess.run(
        [sys.executable, "-c", FORK, str(path), hint],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert len(lines) == 6, done.stderr
    for line in lines[:4]:
        assert str(path) in line
        assert "not survive a fork" in line
        assert "call edgekit.load in the child" in line
    assert lines[4:] == ["3", "2 3"]


def test_a_loaded_model_says_why_it_cannot_be_pickled() -> None:
    model = edgekit.load(bundles.bundle("onnxruntime-cpu"), cache=False)
    with pytest.raises(UsageError, match="cannot be pickled: send the bundle's path"):
        pickle.dumps(model)


class Stuck:
    """A runtime whose first inference never ends."""

    parallel = 1

    def __init__(self, model: Model) -> None:
        self._model = model
        self.go = threading.Event()

    def run(self, batch: np.ndarray) -> object:
        self.go.wait()
        return self._model.run(batch)

    def describe(self) -> dict[str, str | int]:
        return {}


def test_a_runtime_that_hangs_is_named_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    good = edgekit.load(bundles.bundle("onnxruntime-cpu"), cache=False)
    stuck = Stuck(good)
    monkeypatch.setattr(threads.result_of, "__defaults__", (0.2,))
    monkeypatch.setattr("edgekit.runtime.model.WAIT_SECONDS", 0.2)
    model = Model(good._bundle, stuck, 0)  # type: ignore[arg-type] # all of a runner that is used
    with pytest.raises(EdgekitError, match=f"{good._bundle.path}: the answer to image 0: nothing"):
        list(model.predict_stream(list(bundles.images(3))))
    stuck.go.set()


def test_streams_share_the_threads_of_the_process() -> None:
    """Starting threads again and again is what a C library's lost wakeup waits for."""
    model = edgekit.load(bundles.bundle("onnxruntime-cpu"), cache=False)
    images = list(bundles.images(6))
    list(model.predict_stream(images, in_flight=2))
    before = running()  # those of other tests are among them
    assert before
    for _ in range(20):
        list(model.predict_stream(images, in_flight=2))
        assert running() == before


def running() -> set[int]:
    return {one.ident or 0 for one in threading.enumerate() if one.name == "edgekit"}


UNFINISHED = """
import sys
import numpy as np
import edgekit
model = edgekit.load(sys.argv[1], cache=False)
stream = model.predict_stream([np.zeros((24, 32, 3), np.uint8)] * 50, in_flight=4)
next(stream)
"""


@pytest.mark.parametrize("target", ["cpu", "onnxruntime-cpu"])
def test_a_program_may_end_in_the_middle_of_a_stream(target: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNFINISHED, str(bundles.bundle(target))],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_threads_grow_with_the_tasks_and_stay() -> None:
    before = threading.active_count()
    gate = threading.Event()
    futures = [threads.submit(gate.wait) for _ in range(5)]
    inner = threads.submit(lambda: threads.result_of(threads.submit(int, "7"), "a number"))
    assert threads.result_of(inner, "a number") == 7  # a task may wait for another one
    gate.set()
    assert [threads.result_of(future, "gate") for future in futures] == [True] * 5
    grown = threading.active_count()
    assert grown - before <= 7
    for _ in range(50):
        threads.result_of(threads.submit(time.monotonic), "the time")
    assert threading.active_count() == grown


def test_a_task_raises_in_the_thread_that_wants_its_result(tmp_path: Path) -> None:
    future = threads.submit((tmp_path / "absent").read_bytes)
    with pytest.raises(FileNotFoundError):
        threads.result_of(future, "a file")
    with pytest.raises(TimeoutError):  # the call's own, not that of waiting for it
        threads.result_of(threads.submit(_times_out), "a call")


def _times_out() -> None:
    raise TimeoutError("the call's own")
