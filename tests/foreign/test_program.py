"""A program as a classifier: its protocol, and programs that do not keep it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekit.core.errors import EdgekitError, UsageError
from edgekit.foreign.open import ForeignOptions, open_foreign
from tests.foreign import classifiers

# What docs/foreign.md shows, with a network for the model.
GOOD = """
import sys
from pathlib import Path
import numpy as np

sys.path.insert(0, ROOT)
from tests.foreign.classifiers import Network

with np.load(Path(__file__).parent / "network.npz") as stored:
    network = Network(**stored)
read, write = sys.stdin.buffer, sys.stdout.buffer
while line := read.readline():
    _, count, height, width = line.split()
    shape = int(count), int(height), int(width), 3
    images = np.frombuffer(read.read(int(np.prod(shape))), np.uint8).reshape(shape)
    logits = network.logits(images).astype("<f4")
    write.write(b"logits %d %d\\n" % logits.shape)
    write.write(logits.tobytes())
    write.flush()
"""
OPTIONS = ForeignOptions("imagenet")


def told() -> ForeignOptions:
    return ForeignOptions(str(classifiers.preprocessing()))


def test_a_program_answers_as_its_network() -> None:
    source = GOOD.replace("ROOT", repr(str(Path(__file__).parents[2])))
    images, _ = classifiers.parts()["test"]
    found = open_foreign(classifiers.program(source, "good.py"), told())
    assert len(found.classes) == 10
    answers = found.run(images[:50]).logits
    assert np.allclose(answers, classifiers.network().logits(images[:50]), atol=1e-3)


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("raise SystemExit('no camera')", "exit code 1, no camera"),
        ("import sys; sys.stdin.readline(); print('hello', flush=True)", "wrote b'hello"),
        (
            "import sys; sys.stdin.readline(); print('logits 1 4', flush=True)",
            "exit code 0, it wrote nothing on standard error",
        ),
        (
            "import sys; sys.stdin.readline(); print('logits 1 99999999999', flush=True)",
            "where 'logits 1 CLASSES' is expected",
        ),
    ],
)
def test_programs_that_do_not_keep_to_it(source: str, problem: str) -> None:
    with pytest.raises(EdgekitError, match=problem) as caught:
        open_foreign(classifiers.program(source, "bad.py"), OPTIONS)
    assert "\n" not in str(caught.value)


def test_no_program() -> None:
    with pytest.raises(UsageError, match="no program 'edgekit-has-no-such'"):
        open_foreign("command:edgekit-has-no-such --flag", OPTIONS)
    with pytest.raises(UsageError, match="no program ''"):
        open_foreign("command:", OPTIONS)
