"""Bundles whose documents, self-test, signature or model say what they should not."""

from __future__ import annotations

import base64
import functools
import json
import random
import shutil
from pathlib import Path
from typing import Any

from tests.hostile.campaign import seeds
from tests.hostile.campaign.damage import damage
from tests.hostile.campaign.forked import Forked
from tests.hostile.campaign.structure import as_json, spoil
from tests.hostile.campaign.zips import spoil_members

Words = list[str | Path]


def _photo(work: Path) -> Path:
    path = work / "photo.png"
    path.write_bytes(seeds.images()["png"])
    return path


def command(draw: random.Random, bundle: Path) -> Words:
    """One that opens a bundle."""
    work = bundle.parent
    shutil.copy(seeds.keys() / "signers", work)
    return draw.choice(
        (
            *([["inspect", bundle]] * 2),
            ["inspect", bundle, "--json"],
            ["report", bundle, "-o", work / "out.html"],
            ["predict", bundle, _photo(work)],
            ["predict", bundle, _photo(work), "--json", "--top", "3"],
            ["verify", bundle, "--signers", work / "signers"],
        )
    )


def _manifest(draw: random.Random, work: Path) -> Words:
    """Its digest is right: whoever changes it can compute that."""
    bundle = seeds.give_bundle(draw.choice(seeds.BACKENDS), work)
    document = spoil(seeds.manifest(bundle), draw)
    data = seeds.sealed(document) if draw.randrange(4) else as_json(document, draw)
    (bundle / "manifest.json").write_bytes(data)
    return command(draw, bundle)


def _evidence(draw: random.Random, work: Path) -> Words:
    bundle = seeds.give_bundle("onnxruntime-cpu", work)
    document = seeds.manifest(bundle)
    if draw.randrange(3) == 0:
        name = draw.choice(("bench", "parity", "build", "quantization", "training", "engine"))
        sections = document["sections"]
        sections[name] = spoil(sections.get(name, {}), draw)
        seeds.put(bundle, document, {})
    else:
        name = draw.choice(("bench.json", "parity.json"))
        data = as_json(spoil(json.loads((bundle / name).read_text()), draw), draw)
        seeds.put(bundle, document, {name: data})
    return draw.choice(
        (
            ["report", bundle, "-o", work / "out.html"],
            ["report", bundle],
            ["inspect", bundle],
            ["inspect", bundle, "--json"],
        )
    )


def _self_test(draw: random.Random, work: Path) -> Words:
    bundle = seeds.give_bundle("onnxruntime-cpu", work)
    data = spoil_members((bundle / "selftest.npz").read_bytes(), draw)
    seeds.put(bundle, seeds.manifest(bundle), {"selftest.npz": data})
    return [bundle]


def _signature(draw: random.Random, work: Path) -> Words:
    bundle = seeds.give_bundle("onnxruntime-cpu", work)
    signers = (seeds.keys() / "signers").read_bytes()
    stored = json.loads((bundle / "signature.json").read_text())
    match draw.randrange(4):
        case 0:
            data = as_json(spoil(stored, draw), draw)
        case 1:
            lines = stored["signature"].strip().splitlines()
            blob = damage(base64.b64decode("".join(lines[1:-1])), draw)
            text = base64.encodebytes(blob).decode()
            data = json.dumps({**stored, "signature": f"{lines[0]}\n{text}{lines[-1]}\n"}).encode()
        case 2:
            data = damage(json.dumps(stored).encode(), draw)
        case _:
            data = json.dumps(stored).encode()
            signers = damage(signers, draw)
            option = draw.choice(("cert-authority", "namespaces=", "valid-before=1", "x" * 9000))
            signers = draw.choice((signers, signers.replace(b" ", f" {option} ".encode(), 1)))
    seeds.put(bundle, seeds.manifest(bundle), {"signature.json": data})
    (work / "list").write_bytes(signers)
    return ["verify", bundle, "--signers", work / "list", *draw.choice(([], ["--json"]))]


@functools.cache
def _graph() -> bytes:
    bundle = seeds.bundle("onnxruntime-cpu")
    return (bundle / seeds.manifest(bundle)["main"]).read_bytes()


def spoil_graph(draw: random.Random) -> bytes:
    """An ONNX file whose parts are exchanged, dropped, doubled or set to numbers at their limits.

    It still parses, three times of four.
    """
    import onnx

    model = onnx.load_from_string(_graph())
    graph = model.graph
    for _ in range(draw.choice((1, 1, 2, 4))):
        lists: list[Any] = [graph.node, graph.initializer, graph.input, graph.output,
                            graph.value_info, model.opset_import, model.functions]  # fmt: skip
        chosen = draw.choice([one for one in lists if len(one)])
        at = draw.randrange(len(chosen))
        match draw.randrange(9):
            case 0:
                del chosen[at]
            case 1:
                chosen.append(chosen[at])
            case 2:
                node = draw.choice(graph.node)
                names = [name for other in graph.node for name in (*other.input, *other.output)]
                if len(node.input):
                    node.input[draw.randrange(len(node.input))] = draw.choice((*names, "", "x"))
            case 3:
                node = draw.choice(graph.node)
                node.op_type = draw.choice(("Loop", "If", "Scan", "Gather", "Nothing", "", "a\nb"))
                node.domain = draw.choice((node.domain, "", "edgekit", "com.microsoft", "\x1b[2J"))
            case 4:
                tensor = draw.choice(graph.initializer)
                tensor.dims.append(draw.choice((0, -1, 1 << 40, 1 << 62, 3)))
            case 5:
                tensor = draw.choice(graph.initializer)
                tensor.data_type = draw.randrange(30)
            case 6:
                tensor = draw.choice(graph.initializer)
                tensor.data_location = 1
                entry = tensor.external_data.add()
                entry.key = "location"
                entry.value = draw.choice(
                    ("../photo.png", "/etc/passwd", "labels.txt", "/dev/zero")
                )
            case 7:
                node = draw.choice([n for n in graph.node if len(n.attribute)] or graph.node)
                for attribute in node.attribute:
                    attribute.i = draw.choice((-1, 0, 1 << 62, -(1 << 63)))
                    attribute.ints[:] = [draw.choice((0, -1, 1 << 40, 3))] * draw.randrange(5)
            case 8:
                value = draw.choice((*graph.input, *graph.output))
                shape = value.type.tensor_type.shape
                for dim in shape.dim:
                    dim.dim_value = draw.choice((0, -1, 1, 1 << 31, 1 << 62))
                value.type.tensor_type.elem_type = draw.choice((1, 2, 7, 8, 10, 99))
    data: bytes = model.SerializeToString()
    return data if draw.randrange(4) else damage(data, draw)


def _model(draw: random.Random, work: Path) -> Words:
    bundle = seeds.give_bundle(draw.choice(seeds.BACKENDS), work)
    document = seeds.manifest(bundle)
    main = document["main"]
    if main.endswith(".onnx"):
        data = spoil_graph(draw)
    else:
        text = (bundle / main).read_bytes()
        data = damage(text, draw)
        if draw.randrange(2):
            words = text.split(b'"')
            for _ in range(draw.choice((1, 1, 2, 5))):
                worst = draw.choice(
                    (
                        b"0",
                        b"-1",
                        b"99999999999",
                        b"4611686018427387904",
                        b"",
                        b"f16",
                        b"i4",
                        b"string",
                        b"Result",
                        b"1,2,3",
                        b"-1,-1",
                    )
                )
                words[1 + 2 * draw.randrange(len(words) // 2)] = worst
            data = b'"'.join(words)
    if draw.randrange(5) == 0 and "model.bin" in document["files"]:
        weights = damage((bundle / "model.bin").read_bytes(), draw)
        seeds.put(bundle, document, {main: data, "model.bin": weights})
    else:
        seeds.put(bundle, document, {main: data})
    if draw.randrange(3) == 0:
        return ["predict", bundle, _photo(work)]
    return ["predict", bundle, _photo(work), "--json"]


def _check(draw: random.Random, work: Path) -> Words:
    path = work / "model.onnx"
    path.write_bytes(spoil_graph(draw))
    (work / "labels.txt").write_text("x")
    dialect = draw.choice(("openvino", "openvino-novnni", "onnxruntime", "tensorrt"))
    return ["check", path, "--dialect", dialect, *draw.choice(([], ["--json"]))]


_CALLS = "tests.hostile.campaign.calls"
HAZARDS = (
    # A manifest may ask for a runtime that is not here, and a graph may not compute: 4 and 1.
    Forked("manifests", _manifest, codes=(1, 2, 4), writes=("out.html",)),
    Forked("evidence: report, inspect", _evidence, writes=("out.html", "bundle")),
    Forked("self-tests", _self_test, codes=(1, 2), function=f"{_CALLS}:self_test"),
    Forked("signatures: verify", _signature),
    Forked("models: predict", _model, codes=(1, 2, 4)),
    Forked("graphs: check", _check, codes=(1, 2)),
)
