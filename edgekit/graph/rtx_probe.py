"""Parses and builds one ONNX file with TensorRT-RTX, in its own process because that may abort.

Run by `edgekit.graph.rtx` as ``python -m edgekit.graph.rtx_probe FILE [PLUGIN]``. The last line
on stdout is a JSON object.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from edgekit.targets.operators import DOMAIN, LOOKUP, LOOKUP_VERSION

_BATCHES = (1, 4, 8)  # smallest, typical and largest batch of a profile


def probe(path: str, plugin: str | None) -> dict[str, Any]:
    """The results of the parser and the builder."""
    # Imported here: only this process may load TensorRT-RTX.
    import tensorrt_rtx_bindings as trt  # type: ignore[import-not-found]

    messages: list[str] = []

    class Log(trt.ILogger):  # type: ignore[misc] # the package has no types
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                messages.append(" ".join(message.split()))

    log = Log()
    result: dict[str, Any] = {"version": trt.__version__, "errors": messages}
    builder = trt.Builder(log)
    if plugin is not None:
        builder.get_plugin_registry().load_library(plugin)
        creator = builder.get_plugin_registry().get_creator(LOOKUP, LOOKUP_VERSION, DOMAIN)
        result["plugin_loaded"] = creator is not None
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    start = time.perf_counter()
    result["parsed"] = bool(parser.parse(Path(path).read_bytes()))
    result["parse_seconds"] = time.perf_counter() - start
    if not result["parsed"]:
        return result
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    result["plugin_layers"] = sum(layer.type == trt.LayerType.PLUGIN_V3 for layer in layers)
    result["outputs"] = {
        network.get_output(index).name: str(network.get_output(index).dtype).split(".")[-1]
        for index in range(network.num_outputs)
    }
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = list(tensor.shape)
        if -1 in shape:
            sizes = [[batch if side == -1 else side for side in shape] for batch in _BATCHES]
            profile.set_shape(tensor.name, *sizes)
            result["dynamic"] = True
    config.add_optimization_profile(profile)
    start = time.perf_counter()
    engine = builder.build_serialized_network(network, config)
    result["build_seconds"] = time.perf_counter() - start
    result["built"] = engine is not None
    result["engine_bytes"] = engine.nbytes if engine is not None else 0
    return result


if __name__ == "__main__":
    print(json.dumps(probe(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)))
