"""Loading workers that stop answering."""

import os
import signal
import time

import pytest

from edgekit.core.errors import Interrupted
from edgekit.data.base import Dataset
from edgekit.data.datasets import open_dataset
from edgekit.data.pool import Pool, WorkerCrashed
from edgekit.training.stop_signal import StopSignal


def test_a_stopped_worker_is_noticed_and_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit.data.pool.WAIT_SECONDS", 2.0)
    monkeypatch.setattr("edgekit.data.pool._END_SECONDS", 0.5)
    with Pool(open_dataset("builtin:fashion-mnist"), label, 1) as pool:
        assert list(pool.map([0, 1])) == [0, 1]
        (process,) = pool._processes
        os.kill(process.pid, signal.SIGSTOP)
        start = time.monotonic()
        with pytest.raises(WorkerCrashed, match="sent nothing for 2 s: check that"):
            list(pool.map([0, 1]))
        assert time.monotonic() - start < 30
        assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize(("signaled", "error"), [(True, Interrupted), (False, WorkerCrashed)])
def test_a_stop_that_reached_the_workers_as_well_is_a_stop(
    signaled: bool, error: type[Exception]
) -> None:
    """As a service manager stops a training: all of its processes get the signal."""

    def train(pool: Pool[int, int]) -> None:
        with StopSignal():
            (process,) = pool._processes
            if signaled:
                os.kill(os.getpid(), signal.SIGTERM)
            process.terminate()
            process.join()
            list(pool.map([0, 1]))

    with Pool(open_dataset("builtin:fashion-mnist"), label, 1) as pool:
        assert list(pool.map([0, 1])) == [0, 1]
        with pytest.raises(error):
            train(pool)


def label(_dataset: Dataset, task: int) -> int:
    return task
