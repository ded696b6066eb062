"""The built-in INT8 network on the emulated device, if this checkout has it built.

edgekit build --target onnxruntime-cpu --target openvino-arm --only compile
"""

from __future__ import annotations

import json

import pytest

from edgekit.bundle.selftest import SELFTEST, SelfTest, read_self_test
from edgekit.bundle.store import open_bundle
from edgekit.core.console import Console
from edgekit.devices.remote_predictor import on_device
from tests.arm.conftest import NAME, Run, Table
from tests.arm.test_device import TARGETS
from tests.arm.userland import SOURCE, Userland

pytestmark = pytest.mark.usefixtures("registered")


@pytest.mark.parametrize("target", TARGETS)
def test_it_answers_as_on_x86(target: str, userland: Userland, run: Run, table: Table) -> None:
    path = SOURCE / "build" / target
    if not (path / SELFTEST).exists():
        pytest.skip(f"no build/{target}: edgekit build --target {target} --only compile")
    bundle = open_bundle(path, any_arch=True)
    wheels = userland.wheels(bundle.manifest.runtime.name)
    code, out, err = run("deploy", path, "--device", NAME, "--wheels", wheels, "--json")
    assert code == 0, err
    (entry,) = json.loads(out)["devices"]
    assert entry["selftest"].startswith("self-test: ")
    size = (bundle.manifest.input.height, bundle.manifest.input.width)
    test = read_self_test(path / SELFTEST, size)
    assert isinstance(test, SelfTest)
    with on_device(NAME, path, Console(verbosity=-1)) as model:
        there = model.run(test.pixels(size, 0, len(test.images)))
    x86, count = test.reference, len(test.images)
    assert there.code is not None
    assert x86.code is not None
    top = int((there.logits.argmax(axis=1) == x86.best).sum())
    codes = int((there.code.reshape(count, -1)[:, test.positions] == x86.code).all(axis=1).sum())
    table.add(f"built-in, {target}", f"{top} of {count} top-1 and {codes} codes as on x86")
    assert top >= 0.95 * count
    assert codes >= 0.9 * count
