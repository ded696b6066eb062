"""Sweeps on a real Ray cluster of two nodes: the same answers, whatever happens to its workers."""

import dataclasses
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgekit.bundle.store import open_bundle
from edgekit.core.errors import EdgekitError
from edgekit.data.corruption_grid import Cells, MakeVariants
from edgekit.data.datasets import open_dataset
from edgekit.foreign.open import ForeignOptions
from edgekit.parity.compare import run_comparison
from edgekit.parity.engines import CheckedPredictor, open_reference
from edgekit.parity.executors import LOCAL, Executor
from edgekit.parity.options import Gates, ParityOptions
from edgekit.parity.predictors import open_bundle_predictor
from edgekit.parity.ray_cluster import executor_on, read_authentication_again
from edgekit.parity.ray_executor import RayExecutor
from edgekit.parity.sweep import ImagePair, Sweep
from edgekit.steps.context import Context
from edgekit.workflows import build_steps
from edgekit.workflows.across import parity_across
from edgekit.workflows.build import build
from edgekit.workflows.foreign_parity import Side
from tests import buckets, bundles
from tests.foreign import classifiers
from tests.parity.models import CODES, coarse, images, sweep
from tests.parity.ray_models import IMAGES, QUIET, doubted, lines, logged
from tests.workflows.small_build import HERE, settings, small_model

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="the [ray] extra is not installed")

ROOT = Path(__file__).resolve().parents[2]
_SECONDS = 120.0  # for what should take one or two


@pytest.fixture(scope="module")
def bucket() -> Iterator[Any]:
    """Before the cluster, whose processes have the environment of its start."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        yield stack.enter_context(buckets.server(patch)) if buckets.AVAILABLE else None


@pytest.fixture(scope="module")
def cluster(bucket: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(dir="/tmp") as folder:
        patch.setenv("EDGEKIT_CACHE", str(tmp_path_factory.getbasetemp() / "elsewhere"))
        patch.setenv("RAY_TMPDIR", folder)
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))  # else it would be left in HOME
        patch.setenv("RAY_worker_niceness", "0")  # else they starve where other tests run, too
        from ray.cluster_utils import Cluster

        read_authentication_again()  # an earlier test may have imported Ray
        own = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 << 20}
        cluster = Cluster(True, head_node_args=own)
        cluster.add_node(**own)
        yield cluster
        cluster.shutdown()


@pytest.fixture(scope="module")
def executor(cluster: Any) -> Iterator[RayExecutor]:
    with executor_on(f"ray:{cluster.address}", QUIET) as executor:
        assert isinstance(executor, RayExecutor)
        yield executor


def document(this: Sweep, *, full: bool, tolerance: float = 90) -> dict[str, Any]:
    """All of parity.json but what time and place decide."""
    options = ParityOptions(gates=Gates(tolerance), full=full)
    found = run_comparison(this, options, QUIET, codebook_size=CODES).document.to_dict()
    for name in ("seconds", "cpu_seconds", "measured"):
        del found[name]
    for name in ("cost", "note"):  # both are of the time that two engines took
        (found["reference_engine"] or {}).pop(name, None)
    return found


@pytest.mark.parametrize("full", [True, False])
def test_the_result_is_that_of_one_machine(
    executor: RayExecutor, tmp_path: Path, full: bool
) -> None:
    """Also where it stops early: after the same image, because it looks at the same places."""
    found = []
    for name, where in (("here", LOCAL), ("there", executor)):
        folder = tmp_path / name
        folder.mkdir()
        this = dataclasses.replace(logged(folder), executor=where, dataset=images(60))
        found.append(document(this, full=full))
        if where is executor:
            assert os.getpid() not in dict(lines(folder))
    assert found[0] == found[1]
    assert (found[0]["images"] < 60) == (not full)


def test_a_bundle_and_its_original_answer_as_on_one_machine(
    executor: RayExecutor, tmp_path: Path
) -> None:
    """Two engines that check each other, too: the same answers are checked, and counted."""
    path, original = bundles.bundle(), bundles.made().onnx

    def compared(name: str, where: Executor) -> dict[str, Any]:
        reference, candidate = open_reference(original), open_bundle_predictor(path)
        assert isinstance(reference, CheckedPredictor)
        reference._worth = np.inf  # whatever it costs
        make = MakeVariants(candidate.preprocessing, Cells(("fog", "snow"), (1, 2, 3, 4, 5)))
        this = sweep(tmp_path / name, coarse(), coarse(), executor=where, make=make)
        this = dataclasses.replace(this, reference=reference, candidate=candidate)
        return document(this, full=True)

    here = compared("here", LOCAL)
    assert here["reference_engine"]["checked"] > 64
    assert compared("there", executor) == here


@pytest.mark.parametrize("full", [True, False])
def test_several_files_answer_as_on_one_machine(
    executor: RayExecutor, tmp_path: Path, full: bool
) -> None:
    """Each with the reference and each with each; a copy of a file is not asked twice."""
    right, copy = classifiers.float_onnx(), tmp_path / "copy.onnx"
    shutil.copyfile(right, copy)
    net = classifiers.network()
    rough = dataclasses.replace(net, weights=net.weights.round(1))
    files = right, classifiers.saved(classifiers.graph(rough), "rough.onnx"), copy
    told = ForeignOptions(str(classifiers.preprocessing()))
    sides = [Side(str(path), told) for path in files]
    options = ParityOptions(
        data=str(classifiers.data()),
        gates=Gates(90),
        corruptions="fog,snow",
        severities=(1, 3, 5),
        full=full,
        images=16 if full else 0,
    )
    found = []
    for name, where in (("here", LOCAL), ("there", executor)):
        context = Context(QUIET, tmp_path / name, executor=where)
        document = parity_across(context, sides, 0, options).to_dict()
        del document["seconds"], document["measured"]
        found.append(document)
    assert found[0] == found[1]
    assert found[0]["images"] < 600
    assert [one["verdict"] for one in found[0]["artifacts"]] == [None, "pass", "pass"]
    if full:  # all of two models; on Ray, too, the copy's answers are those of the file
        assert found[0]["inferences"] == 16 * 7 * 2


@buckets.needed
def test_images_in_a_bucket_are_fetched_by_the_workers(
    bucket: Any,
    executor: RayExecutor,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By URL: what the driver has fetched is not where they would look."""
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "driver"))
    some = images(IMAGES)
    for index in range(len(some)):
        file = tmp_path / "photos" / str(some.label(index)) / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(some.image(index)).save(file)
    found = []
    for uri, where in (
        (str(tmp_path / "photos"), LOCAL),
        (buckets.upload(bucket, tmp_path / "photos", "photos"), executor),
    ):
        folder = tmp_path / ("there" if where is executor else "here")
        folder.mkdir()
        this = dataclasses.replace(logged(folder), executor=where, dataset=open_dataset(uri))
        found.append(document(this, full=True))
        assert found[-1].pop("data") == uri
    assert found[0] == found[1]
    for cache in (tmp_path / "driver", tmp_path_factory.getbasetemp() / "elsewhere"):
        assert len([*(cache / "remote").iterdir()]) == IMAGES


def test_targets_are_calibrated_on_machines_of_their_own(
    cluster: Any, executor: RayExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This process calibrates nothing: it finds both results in the cache, as of a build here."""
    executor.close()  # its workers have all the cores
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    model = small_model(tmp_path / "model")
    config = settings(model, tmp_path / "out", target=("openvino-cpu-avx2", HERE), watch=False)
    config = dataclasses.replace(config, bench=False, parity=False)
    calibrated = []
    with monkeypatch.context() as patch:
        patch.setattr(build_steps, "calibrate", lambda *_, **__: calibrated.append(1))
        built = build(config, QUIET, executor=executor)
    assert not calibrated
    assert len([*(tmp_path / "cache/calibrate").iterdir()]) == 2
    assert all(open_bundle(each.path).manifest for each in built)


def test_an_engine_that_is_wrong_there_is_not_used(executor: RayExecutor, tmp_path: Path) -> None:
    found = []
    for name, sweep_of, where in (("here", logged, LOCAL), ("there", doubted, executor)):
        folder = tmp_path / name
        folder.mkdir()
        found.append(document(dataclasses.replace(sweep_of(folder), executor=where), full=True))
    engine = found[1].pop("reference_engine")
    assert (engine["answers"], engine["checked_by"]) == ("coarse", None)
    for document_ in found:  # the candidate's answers of the first attempt are cached
        document_.pop("reference_engine", None)
        del document_["inferences"], document_["inferences_cached"]
    assert found[0] == found[1]


def test_a_killed_worker_is_replaced(
    executor: RayExecutor, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = set()

    def kill(_: Any) -> None:
        before.update(executor.hands)
        os.kill(lines(tmp_path)[-1][0], signal.SIGKILL)

    disturbed(executor, tmp_path, kill)
    again = {total: count for total, count in counted(tmp_path).items() if count > 1}
    assert sum(again.values()) <= 2  # the one that it computed, if any
    assert len(executor.hands) == len(before) == 2
    assert len(before & {*executor.hands}) == 1
    assert capfd.readouterr() == ("", "")  # Ray would say it on stdout, where --json prints


def test_an_image_that_fails_three_times_is_named(executor: RayExecutor, tmp_path: Path) -> None:
    this = logged(tmp_path)
    order = [pair.candidate for pair in logged(tmp_path).pairs()]
    totals = [total for _, total in lines(tmp_path)]
    assert len(order) == len(totals) == IMAGES
    folder = tmp_path / "there"
    folder.mkdir()
    this = dataclasses.replace(logged(folder, refuses=totals[10]), executor=executor)
    pairs = this.pairs()
    assert len(list(islice(pairs, 10))) == 10
    with pytest.raises(EdgekitError, match=r"^image \S+ failed 3 times, the last on \S+: it does"):
        next(pairs)
    assert counted(folder)[totals[10]] == 3


def test_a_killed_driver_is_run_again(cluster: Any, executor: RayExecutor, tmp_path: Path) -> None:
    executor.close()  # its workers have all the cores
    command = [sys.executable, "-m", "tests.parity.ray_models"]
    with subprocess.Popen([*command, f"ray:{cluster.address}", str(tmp_path)], cwd=ROOT) as driver:
        wait_for(lambda: len(cached(tmp_path)) >= 3 or driver.poll() is not None)
        driver.kill()
    finished, asked = cached(tmp_path), len(lines(tmp_path))
    there = sum(map(len, shelved(tmp_path)))
    assert 3 <= len(finished) < IMAGES
    this = dataclasses.replace(logged(tmp_path), executor=executor)
    pairs = list(this.pairs())
    # It may have been killed between the first model's answers to an image and the second's.
    assert sum(pair.computed for pair in pairs) == 5 * (2 * IMAGES - there)
    assert same(pairs, expected(tmp_path))
    rerun = lines(tmp_path)[asked:]
    assert len(rerun) <= IMAGES - len(finished) + 2  # workers may have outlived their driver


def test_a_removed_node_is_done_without(
    cluster: Any, executor: RayExecutor, tmp_path: Path
) -> None:
    """The last of these tests: the cluster is smaller after it."""
    disturbed(executor, tmp_path, lambda _: cluster.remove_node(cluster.worker_nodes.copy().pop()))
    again = {total: count for total, count in counted(tmp_path).items() if count > 1}
    assert sum(again.values()) <= 4


def test_ctrl_c_leaves_nothing_of_a_ray_of_its_own(tmp_path: Path) -> None:
    original, pixels = bundles.made().onnx, tmp_path / "pixels.toml"
    pixels.write_text("size = [24, 32]\nmean = [90.0, 120.0, 140.0]\nstd = [50.0, 60.0, 70.0]\n")
    home = tmp_path / "home"
    home.mkdir()
    command = [sys.executable, "-m", "edgekit", "parity", str(original), "--on", "ray", "--json"]
    command += ["--reference", str(original), "--preprocessing", str(pixels)]
    command += ["--data", "builtin:fashion-mnist", "--allow-weak-reference"]
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        own = {"HOME": str(home), "TMPDIR": folder, "EDGEKIT_CACHE": str(tmp_path)}
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, **own}
        ) as process:
            answered = (tmp_path / "parity").glob
            wait_for(lambda: len([*answered("*/*")]) > 20 or process.poll() is not None)
            process.send_signal(signal.SIGINT)
            printed = process.communicate()[0]
        assert process.returncode == 130
        assert json.loads(printed)["exit_code"] == 130  # and nothing else is on stdout
        assert list(Path(folder).iterdir()) == list(home.iterdir()) == []
        running = (path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline"))
        assert not [line for line in running if folder.encode() in line]


def test_a_process_may_start_one_ray_after_another() -> None:
    """Each has a secret of its own, and Ray remembers the first that it read."""
    twice = (
        "import ray\n"
        "from edgekit.parity.ray_cluster import _started\n"
        "for turn in 1, 2:\n"
        "    with _started():\n"
        "        print(turn, ray.get(ray.put('lives')))\n"
    )
    env = {name: text for name, text in os.environ.items() if not name.startswith("RAY_AUTH")}
    ran = subprocess.run(
        [sys.executable, "-c", twice], capture_output=True, text=True, timeout=_SECONDS, env=env
    )
    assert ran.stdout.split("\n") == ["1 lives", "2 lives", ""], ran.stderr


def disturbed(executor: RayExecutor, folder: Path, disturb: Callable[[Any], None]) -> None:
    """A sweep completes, with the same answers, although its workers are disturbed."""
    this = dataclasses.replace(logged(folder, pause=0.05), executor=executor)
    found = []
    with closing(this.pairs()) as pairs:  # type: ignore[type-var]
        for pair in pairs:
            found.append(pair)
            if len(found) == 6:
                disturb(None)
    assert same(found, expected(folder))


def expected(folder: Path) -> list[ImagePair]:
    plain = folder / "plain"
    plain.mkdir()
    return list(logged(plain).pairs())


def same(found: list[ImagePair], wanted: list[ImagePair]) -> bool:
    def content(pairs: list[ImagePair]) -> list[Any]:
        return [
            [pair.label, pair.numbers, *(part.tolist() for part in (*pair[2], *pair[3]))]
            for pair in pairs
        ]

    return content(found) == content(wanted)


def counted(folder: Path) -> Counter[int]:
    return Counter(total for _, total in lines(folder))


def cached(folder: Path) -> set[str]:
    """The images that both models have answered."""
    found = shelved(folder)
    return set.intersection(*found) if len(found) == 2 else set()


def shelved(folder: Path) -> list[set[str]]:
    """The images that each model has answered."""
    shelves = [path for path in (folder / "cache").glob("*") if path.is_dir()]
    return [{file.name for file in shelf.iterdir() if len(file.name) == 40} for shelf in shelves]


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + _SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
