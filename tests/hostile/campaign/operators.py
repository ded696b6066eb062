"""Graphs of OpenVINO with our operators, made at random: the right answer, or a refusal in words.

Each runs in a process of its own, because reading out of bounds ends one.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.graph.lookup import LookupSpec
from tests.hostile.campaign import head_graphs
from tests.hostile.campaign.case import ROOT, Hazard, Verdict

_GRAPHS = 8
START = """
import json, os, sys
import numpy as np, onnx, openvino as ov
from onnx import TensorProto, helper, numpy_helper
import edgekit

core = ov.Core()
core.add_extension(edgekit.extension_path())
"""
_LOOKUP = """
def one(g):
    random = np.random.default_rng(g["seed"])
    kind = getattr(TensorProto, g["table"])
    count = int(np.prod(g["shape"]))
    values = random.integers(-3, 4, count) if "INT" in g["table"] else random.normal(size=count)
    if g["values"]:
        values = np.resize(np.array(g["values"], dtype=float), count)
    if g["table"].startswith("UINT"):
        values = abs(values)
    stored = helper.make_tensor("stored", kind, g["shape"], values)
    values = onnx.numpy_helper.to_array(stored)
    # As raw bytes: OpenVINO misreads bfloat16 in int32_data, whatever operator comes behind it.
    stored, exact = onnx.numpy_helper.from_array(values, "stored"), values.astype(np.float32)
    nodes = [helper.make_node("Cast", ["stored"], ["codebook"], to=TensorProto.FLOAT)]
    names = (["features", "codebook", "features"])[: g["inputs"]]
    outputs = ["indices", "margin"][: g["outputs"]]
    nodes.append(helper.make_node("CodebookLookup", names, outputs, domain="edgekit",
                                  **g["attributes"]))
    infos = [helper.make_tensor_value_info("indices", TensorProto.INT64, None)]
    if len(outputs) > 1:
        infos.append(helper.make_tensor_value_info("margin", TensorProto.FLOAT, None))
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info(
        "features", TensorProto.FLOAT, g["declared"])], infos, [stored])
    model = helper.make_model(graph, ir_version=10, opset_imports=[
        helper.make_opsetid("", 21), helper.make_opsetid("edgekit", 1)])
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU")
    x = random.normal(size=g["given"]).astype(np.float32)
    found = compiled(x)[0]
    scores = x.astype(float) @ exact.T.astype(float)
    if g["attributes"].get("metric") == "l2":
        scores -= (exact.astype(float) ** 2).sum(1) / 2
    top = scores.max(-1)
    assert found.shape == top.shape, ("shape", found.shape, top.shape)
    got = np.take_along_axis(scores, found[..., None], -1)[..., 0]
    assert (got >= top - 1e-9 * (1 + abs(top))).all(), "another index"
    return "right"
"""
END = """
for g in json.loads(sys.argv[1]):
    print(json.dumps(g), flush=True)
    try:
        print(one(g), flush=True)
    except AssertionError as error:
        print("WRONG", error, flush=True)
    except (RuntimeError, ValueError, TypeError, onnx.checker.ValidationError) as error:
        print("refused", " ".join(str(error).split())[-300:], flush=True)
sys.stdout.flush()
os._exit(0)
"""
_TABLES = ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE", "INT8", "UINT8", "INT4", "UINT4", "INT32")


def graph(chance: random.Random) -> dict[str, Any]:
    """The description of one; most of it is valid, or no case would get far."""
    rows, width = chance.choice((1, 2, 7, 64, 65, 300)), chance.choice((1, 3, 8, 17, 64, 129))
    shape = [rows, width]
    if chance.random() < 0.2:
        shape = chance.choice(([width], [1, rows, width], [0, width], [rows, 0], []))
    count, odd = chance.choice((0, 1, 5, 33)), chance.random() < 0.2
    given = chance.choices(([count, width], [2, count, width]), (9, 1))[0]
    if odd:
        given = chance.choice(([width], [count, width + 1], [], [count, 0], [count, 2 * width]))
    margin = chance.random() < 0.5
    attributes: dict[str, int | float | str] = dict(
        LookupSpec(chance.choice(("dot", "l2")), margin=margin, rows=2).attributes()
    )
    if chance.random() < 0.2:
        name = chance.choice((*attributes, "other"))
        value = chance.choice(("l2", "", "cosine", 1, -1, 1 << 40, 2.5, "9" * 300))
        attributes[name] = value
    if chance.random() < 0.1:
        del attributes[chance.choice(list(attributes))]
    declared: list[Any] = list(given) if chance.random() < 0.3 else [*"ABCD"[: len(given)]]
    special = chance.choice(([], [], [], [0.0], [1e30, -1e30], [float("inf"), 1.0]))
    return {
        "seed": chance.randrange(1 << 30),
        "table": chance.choice(_TABLES),
        "shape": shape,
        "values": special if chance.random() < 0.5 else [],
        "inputs": chance.choices((2, 1, 3), (8, 1, 1))[0],
        "outputs": 1 + (margin if chance.random() < 0.9 else not margin),
        "attributes": attributes,
        "declared": declared,
        "given": given,
    }


@dataclass(frozen=True)
class Operators:
    """Eight graphs in one process."""

    name: str
    program: str
    """Defines ``one``, which runs a graph and asserts that its answer is right."""
    make: Callable[[random.Random], dict[str, Any]]
    """What ``one`` gets."""

    def run(self, seed: int, folder: Path) -> Verdict:
        """Fault: a crash, a wrong answer, or what is no refusal."""
        chance = random.Random(f"{self.name} {seed}")
        graphs = [self.make(chance) for _ in range(_GRAPHS)]
        path = os.pathsep.join(filter(None, [str(ROOT), *sys.path]))
        done = subprocess.run(
            [sys.executable, "-c", START + self.program + END, json.dumps(graphs)],
            capture_output=True, text=True, check=False, timeout=120,
            env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip
        lines = done.stdout.splitlines()
        if done.returncode:
            said = done.stderr.strip()[-600:]
            return Verdict("fault", f"{done.returncode} in {lines[-1] if lines else ''}: {said}")
        if wrong := [i for i, line in enumerate(lines) if line.startswith("WRONG")]:
            return Verdict("fault", f"{lines[wrong[0]]}: {lines[wrong[0] - 1]}")
        right = lines.count("right")
        kinds = f"{right} right, {_GRAPHS - right} refused"
        return Verdict("passed" if right else "refused", kinds)


HAZARDS: tuple[Hazard, ...] = (
    Operators("operators: graphs of OpenVINO", _LOOKUP, graph),
    Operators("operators: heads of OpenVINO", head_graphs.PROGRAM, head_graphs.head),
)
