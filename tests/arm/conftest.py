"""The userland as a device behind a real sshd, bundles for it, and the table at the end."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from edgekit.bundle.manifest import FIELD
from edgekit.bundle.selftest import SELFTEST
from edgekit.bundle.store import update_bundle
from edgekit.compilers.base import LookupForm
from edgekit.devices.registry import Device, add_device
from edgekit.field.reference import make_reference
from edgekit.parity.predictors import open_bundle_predictor
from edgekit.runtime.answers import Answers
from edgekit.targets.descriptor import load_descriptor
from tests import bundles, shared
from tests.arm.userland import Userland, location
from tests.devices.conftest import Server, serving
from tests.hostile.devices import Run, run
from tests.runtime.test_selftest import graph, self_test

__all__ = ["Run", "run"]

NAME = "pi"
_TABLE = pytest.StashKey[list[tuple[str, str]]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_TABLE] = []


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if rows := config.stash.get(_TABLE, []):
        terminalreporter.section("aarch64, emulated: no time of it means anything")
        for what, result in rows:
            terminalreporter.line(f"{what:<34} {result}")


@dataclass(frozen=True)
class Table:
    """What ran, and how its answers compare with x86."""

    rows: list[tuple[str, str]]

    def add(self, what: str, result: str) -> None:
        """A line of it."""
        self.rows.append((what, result))


@pytest.fixture(scope="session")
def table(request: pytest.FixtureRequest) -> Table:
    return Table(request.config.stash[_TABLE])


@pytest.fixture(scope="session")
def userland() -> Userland:
    found = location()
    if found is None:
        pytest.skip("EDGEKIT_ARM_USERLAND is not set: 'make test-arm' makes its folder")
    return found


@pytest.fixture(scope="session")
def home(userland: Userland) -> Path:
    """edgekit's folder on the device, as this machine sees it; runtimes stay from run to run."""
    folder = userland.root / "root" / ".edgekit"
    for path in folder.glob("*"):
        if path.name != "runtimes":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return folder


@pytest.fixture(scope="session")
def server(userland: Userland, home: Path) -> Iterator[Server]:
    with serving(f"ForceCommand {userland.enter}") as made:
        yield made


@pytest.fixture(scope="session")
def device(server: Server) -> Device:
    """As a user registers it: its Python and folder are the usual ones."""
    return dataclasses.replace(server.device(Path("~/.edgekit"), NAME), python="python3")


@pytest.fixture
def registered(device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or changes the user's devices and cache."""
    monkeypatch.setenv("EDGEKIT_DEVICES", str(tmp_path / "devices.toml"))
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    add_device(device)


@dataclass(frozen=True)
class Likeness:
    """How alike two engines answered the same images."""

    images: int
    codes: int  # equal ones
    top: int  # images with the same most likely class
    off: float  # RMS of the logits' difference, relative to their own

    @classmethod
    def of(cls, here: Answers, there: Answers) -> Likeness:
        assert here.code is not None
        assert there.code is not None
        difference = np.sqrt(np.mean((here.logits - there.logits) ** 2))
        return cls(
            len(here.logits),
            int((here.code == there.code).sum()),
            int((here.logits.argmax(1) == there.logits.argmax(1)).sum()),
            float(difference / np.sqrt(np.mean(here.logits**2))),
        )

    def text(self, other: str) -> str:
        return (
            f"{self.top} of {self.images} top-1, {self.codes} codes as {other}; "
            f"relative RMS {self.off:.1e}"
        )


@functools.cache
def int8(target: str) -> Path:
    """An INT8 bundle for ARM with a self-test and what `watch` needs."""
    return shared.once(f"arm-{target}", functools.partial(_pack, target, here=False))


@functools.cache
def twin(target: str) -> Path:
    """The same graph in ONNX Runtime here, whose 8-bit sums are exact on every CPU.

    OpenVINO's here are not without VNNI: in a graph like this one, for CPUs that have dot
    products, the features then end up 16% away and 9 of 48 codes are others.
    """
    return shared.once(f"arm-{target}-twin", functools.partial(_pack, target, here=True))


def _pack(target: str, path: Path, *, here: bool) -> None:
    made, descriptor = bundles.made(), load_descriptor("onnxruntime-cpu" if here else target)
    source = shared.own() / f"{path.name}.onnx"
    onnx.save(graph(target), source)
    lookup: LookupForm = "plugin" if descriptor.backend == "openvino" else "inline"
    bundles.pack(source, made.card, descriptor, path, lookup=lookup)
    if here:
        return
    update_bundle(path, reports={SELFTEST: self_test(target).to_bytes()})
    normal, clean = (here_answers(target, bundles.images(300, seed=seed)) for seed in (21, 22))
    dark = here_answers(target, darker(bundles.images(300, seed=23)))
    reference = make_reference((normal, None), (clean, None), [("fog", 3, dark, None)], 16)
    update_bundle(path, reports={FIELD: json.dumps(reference.to_dict()).encode()})


def darker(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What the lab knows beside normal images."""
    return pixels // 5


def here_answers(target: str, pixels: NDArray[np.uint8]) -> Answers:
    """This machine's."""
    return open_bundle_predictor(twin(target)).run(pixels)
