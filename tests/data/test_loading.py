import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgekit.core.errors import EdgekitError, UsageError
from edgekit.data.base import Dataset
from edgekit.data.datasets import open_dataset
from edgekit.data.decode import BadImage
from edgekit.data.loading import Skipped, batched, epoch_order, load_each, rng_for
from edgekit.data.pool import Pool, WorkerBug, WorkerCrashed
from edgekit.data.transforms import IMAGENET, Preprocessing

SMALL = Preprocessing(size=(32, 32))


class Fit(NamedTuple):
    """Index, label, and the image at the network's size; workers get it by pickling."""

    preprocessing: Preprocessing

    def __call__(self, dataset: Dataset, index: int) -> tuple[int, int, np.ndarray]:
        return index, dataset.label(index), self.preprocessing.fit(dataset.image(index))


def noisy(dataset: Dataset, task: tuple[int, int]) -> np.ndarray:
    """Uneven work, random pixels."""
    index, epoch = task
    rng = rng_for(7, epoch, dataset.key(index))
    if index % 5 == 0:
        time.sleep(0.01)
    return dataset.image(index).astype(np.int16) + rng.integers(-9, 9, (28, 28, 3), np.int16)


def same(dataset: Dataset, index: int) -> int:
    return index


def refuses_13(dataset: Dataset, index: int) -> int:
    if index == 13:
        raise EdgekitError("13 is no good")
    return index


def buggy(dataset: Dataset, index: int) -> int:
    return index // (index - 5)


def dies(dataset: Dataset, index: int) -> int:
    if index == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return index


def sleeps(dataset: Dataset, index: int) -> int:
    time.sleep(0.03)
    return os.getpid()


def threads_of_opencv(dataset: Dataset, index: int) -> int:
    import cv2

    return int(cv2.getNumThreads())


def big(dataset: Dataset, index: int) -> np.ndarray:
    return np.full(1_000_000, index, np.uint8)


@pytest.fixture
def dataset() -> Dataset:
    return open_dataset("builtin:fashion-mnist")


def test_same_bytes_in_the_same_order_whatever_the_worker_count(dataset: Dataset) -> None:
    tasks = [(int(i), epoch) for epoch in (0, 1) for i in epoch_order(40, 3, epoch)]
    hashes = set()
    for workers, chunk in ((0, 8), (1, 8), (2, 8), (2, 1), (3, 50)):
        total = hashlib.sha256()
        count = 0
        for result in load_each(dataset, tasks, noisy, workers=workers, chunk=chunk):
            total.update(result.tobytes())
            count += 1
        assert count == len(tasks)
        hashes.add(total.hexdigest())
    assert len(hashes) == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_fitted_images_come_in_the_order_asked_for(dataset: Dataset, workers: int) -> None:
    indices = [5, 3, 7999, 3, 10]
    loaded = list(load_each(dataset, indices, Fit(SMALL), workers=workers))
    assert [index for index, _, _ in loaded] == indices
    assert [label for _, label, _ in loaded] == [dataset.label(i) for i in indices]
    assert np.array_equal(loaded[3][2], SMALL.fit(dataset.image(3)))


@given(st.integers(0, 50), st.integers(1, 12), st.booleans())
def test_batched_drops_nothing_but_the_rest(count: int, size: int, drop_last: bool) -> None:
    groups = list(batched(range(count), size, drop_last=drop_last))
    kept = count - count % size if drop_last else count
    assert [item for group in groups for item in group] == list(range(kept))
    assert all(len(group) == size for group in groups[:-1])


def test_nothing_to_load_and_silly_numbers(dataset: Dataset) -> None:
    assert list(load_each(dataset, [], same, workers=2)) == []
    with pytest.raises(UsageError, match="workers must not be negative"):
        list(load_each(dataset, [0], same, workers=-1))
    with pytest.raises(UsageError, match="at least 1 image"):
        list(batched([1], 0))


def test_workers_work_at_the_same_time(dataset: Dataset) -> None:
    times = {}
    for workers in (1, 4):
        with Pool(dataset, sleeps, workers) as pool:
            pids = set(pool.map(range(8), chunk=1))  # started and warm
            assert len(pids) == workers
            start = time.perf_counter()
            assert os.getpid() not in set(pool.map(range(48), chunk=2))
            times[workers] = time.perf_counter() - start
    assert times[4] < times[1] / 2.5


def test_a_pool_serves_epoch_after_epoch(dataset: Dataset) -> None:
    with Pool(dataset, same, 2) as pool:
        for _ in range(3):
            assert list(pool.map(range(20))) == list(range(20))
        first = pool.map(range(20))
        next(first)
        with pytest.raises(RuntimeError, match="in use"):
            next(pool.map(range(3)))
        first.close()  # dropped half-way: its results are still on their way
        with pytest.raises(RuntimeError, match="closed"):
            next(pool.map(range(3)))


def test_reading_ahead_is_bounded(dataset: Dataset) -> None:
    taken = []

    def tasks() -> object:
        for index in range(1000):
            taken.append(index)
            yield index

    results = load_each(dataset, tasks(), same, workers=2, chunk=3)
    for asked in range(1, 40):
        next(results)
        time.sleep(0.002)
        assert len(taken) <= asked + 2 * 2 * 3 + 3
    results.close()


def test_memory_of_the_parent_stays_bounded(dataset: Dataset) -> None:
    import tracemalloc

    tracemalloc.start()
    for index, result in enumerate(load_each(dataset, range(60), big, workers=2, chunk=1)):
        assert result[0] == result[-1] == index
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6  # 60 MB went through


@pytest.fixture
def damaged(tmp_path: Path) -> Dataset:
    for index in range(10):
        path = tmp_path / f"{'cat' if index % 2 else 'dog'}/{index}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 30), (index, 0, 0)).save(path)
        if index in (3, 4):
            path.write_bytes(path.read_bytes()[:50])
    return open_dataset(str(tmp_path))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_image_is_an_error_that_names_it(damaged: Dataset, workers: int) -> None:
    with pytest.raises(BadImage, match=r"cat/3\.png is corrupt or truncated") as caught:
        list(load_each(damaged, range(len(damaged)), Fit(IMAGENET), workers=workers))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_training_skips_bad_images_and_counts_them_once(
    damaged: Dataset, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    skipped = Skipped()
    for _ in range(2):
        tasks = range(len(damaged))
        loaded = list(load_each(damaged, tasks, Fit(SMALL), workers=workers, on_bad=skipped))
        keys = {damaged.key(index) for index, _, _ in loaded}
        assert len(keys) == 8
        assert not keys & {"cat/3.png", "dog/4.png"}
    assert skipped.count == 2
    assert [message.split("/")[-1][:5] for message in skipped.messages] == ["3.png", "4.png"]
    assert caplog.text.count("left out") == 2


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_an_error_comes_after_the_results_before_it(dataset: Dataset, workers: int) -> None:
    results = load_each(dataset, range(40), refuses_13, workers=workers, chunk=4)
    seen = []
    with pytest.raises(EdgekitError, match="13 is no good"):
        seen.extend(results)
    assert seen == list(range(13))


def test_a_bug_in_the_function_arrives_with_its_traceback(dataset: Dataset) -> None:
    with pytest.raises(ZeroDivisionError):
        list(load_each(dataset, range(9), buggy))
    with pytest.raises(WorkerBug, match=r"in buggy\n(.|\n)*ZeroDivisionError"):
        list(load_each(dataset, range(9), buggy, workers=2, chunk=2))


def test_a_killed_worker_is_noticed(dataset: Dataset) -> None:
    with pytest.raises(WorkerCrashed, match=r"killed by SIGKILL: out of memory\?"):
        list(load_each(dataset, range(40), dies, workers=2, chunk=1))


def test_a_script_without_a_main_guard_is_told_so(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        SCRIPT.split("if __name__")[0]
        + textwrap.dedent("""
        from edgekit.core.errors import EdgekitError
        try:
            with Pool(open_dataset("builtin:fashion-mnist"), slow, 1) as pool:
                list(pool.map(range(3)))
        except EdgekitError as error:
            print(error)
    """)
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, str(script)], env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert "needs if __name__ == '__main__':" in done.stdout


def test_opencv_has_one_thread_in_a_worker(dataset: Dataset) -> None:
    pytest.importorskip("cv2")
    assert list(load_each(dataset, [0], threads_of_opencv, workers=1)) == [1]


SCRIPT = textwrap.dedent("""
    import multiprocessing, sys, time
    from edgekit.data.datasets import open_dataset
    from edgekit.data.pool import Pool

    def slow(dataset, index):
        time.sleep(0.02)
        return index

    if __name__ == "__main__":
        try:
            with Pool(open_dataset("builtin:fashion-mnist"), slow, 2) as pool:
                results = pool.map(range(100000))
                next(results)
                print(*(child.pid for child in multiprocessing.active_children()), flush=True)
                for _ in results:
                    pass
        except KeyboardInterrupt:
            sys.exit(130)
""")


def alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_no_process_outlives_the_parent(number: int, code: int, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        workers = [int(pid) for pid in process.stdout.readline().split()]
        assert len(workers) == 2
        assert all(map(alive, workers))
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # what a terminal does on Ctrl-C
        else:
            process.kill()
        assert process.wait(10) == code
        deadline = time.monotonic() + 5
        while any(map(alive, workers)) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not any(map(alive, workers))
        assert process.stderr is not None
        assert process.stderr.read() == ""  # no tracebacks of workers either


def test_rng_for_depends_on_its_arguments_alone() -> None:
    def draw(seed: int, epoch: int, key: str) -> list[int]:
        return rng_for(seed, epoch, key).integers(0, 2**32, 4).tolist()

    assert draw(1, 2, "a") == draw(1, 2, "a")
    others = [draw(1, 2, "a"), draw(2, 2, "a"), draw(1, 3, "a"), draw(1, 2, "b"), draw(12, 0, "a")]
    assert len({tuple(values) for values in others}) == len(others)
    assert rng_for(0, 0, "caf\udce9.png").integers(0, 2**32) >= 0


def test_epoch_order() -> None:
    first = epoch_order(1000, 5, 0)
    assert sorted(first.tolist()) == list(range(1000))
    assert first.dtype == np.int64
    assert first.tolist() == epoch_order(1000, 5, 0).tolist()
    assert first.tolist() != epoch_order(1000, 5, 1).tolist()
    assert first.tolist() != epoch_order(1000, 6, 0).tolist()
    assert epoch_order(0, 5, 0).tolist() == []
    assert epoch_order(6, 5, 0).tolist() == [4, 1, 0, 2, 5, 3]  # pinned: resumed runs depend on it


def test_the_data_layer_needs_no_torch() -> None:
    code = (
        "import sys, edgekit.data.datasets, edgekit.data.splits, edgekit.data.loading;"
        "print(sorted({'torch', 'scipy', 'cv2', 'onnx'} & set(sys.modules)))"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert done.stdout == "[]\n"
