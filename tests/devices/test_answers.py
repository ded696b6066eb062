"""Answers survive the way back from a device bit for bit; nonsense is an error."""

import dataclasses

import numpy as np
import pytest

from edgekit.core.errors import EdgekitError, ToolchainMissing
from edgekit.devices.answers import Answer, InvalidAnswer
from edgekit.devices.failures import remote_failure
from edgekit.devices.remote.agent import unpack
from edgekit.devices.remote.serve import pack_answers
from edgekit.devices.remote_predictor import device_key, unpack_answers
from edgekit.runtime.answers import Answers
from tests.devices.test_compatibility import jetson


def there_and_back(answers: Answers) -> Answers:
    data = pack_answers(answers)
    place = [0]

    def read(count: int) -> bytes:
        place[0] += count
        return data[place[0] - count : place[0]]

    header, payload = unpack(read)
    found = unpack_answers(Answer(header, "it"), payload)
    assert place[0] == len(data)
    return found


@pytest.mark.parametrize("shape", [(3,), (3, 5), None], ids=["pooled", "spatial", "no codebook"])
def test_there_and_back(shape: tuple[int, ...] | None) -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(3, 7)).astype(np.float32)
    logits[1, 2] = np.nan
    code = None if shape is None else random.integers(0, 1 << 40, shape)
    margin = None if shape is None else random.normal(size=shape).astype(np.float32)
    sent = Answers(logits, code, margin).arrays()
    came = there_and_back(Answers(logits, code, margin)).arrays()
    assert came.keys() == sent.keys()
    for name, values in sent.items():
        assert came[name].dtype == values.dtype
        np.testing.assert_array_equal(came[name], values)


@pytest.mark.parametrize(
    "shapes",
    [
        {},
        {"logits": None, "code": None, "margin": None},
        {"logits": [1 << 40, 7], "code": None, "margin": None},
        {"logits": "many", "code": None, "margin": None},
        {"logits": [1, -7], "code": None, "margin": None},
        {"logits": [1, 6], "code": None, "margin": None},
        {"logits": [1, 3], "code": [2], "margin": [[]]},
    ],
)
def test_nonsense(shapes: dict[str, object]) -> None:
    with pytest.raises(InvalidAnswer, match="makes no sense"):
        unpack_answers(Answer({"shapes": shapes}, "it"), bytes(28))


def test_answers_are_kept_by_machine() -> None:
    one = dataclasses.replace(jetson(), machine_id="a1", hostname="nano")
    assert device_key(one) == device_key(dataclasses.replace(one, hostname="renamed"))
    assert device_key(one) != device_key(dataclasses.replace(one, machine_id="b2"))
    nameless = dataclasses.replace(one, machine_id="")
    assert device_key(nameless) != device_key(dataclasses.replace(nameless, hostname="other"))


def test_what_is_said_of_a_failure() -> None:
    killed = remote_failure("nano", -9, ["loading"])
    assert str(killed) == "nano: the process there was killed by signal 9: it may be out of memory"
    missing = remote_failure("nano", 4, ["loading", "error: no trtexec", "bye"])
    assert isinstance(missing, ToolchainMissing)
    assert str(missing) == "nano: no trtexec"
    assert type(remote_failure("nano", 77, [])) is EdgekitError
