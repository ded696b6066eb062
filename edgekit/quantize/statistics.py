"""Collects the statistics that NNCF asks for.

NNCF makes every value that it wants the statistics of an output, weights included, and reduces the
arrays in Python: of a ResNet-50, 130 MB for each image. Nearly always it wants the smallest and
the largest element, which the graph itself can tell, and weights are the same for every image.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgekit.graph.reductions import reduce_over
from edgekit.graph.view import add_outputs, constants, copied

Values = dict[str, NDArray[Any]]


@contextlib.contextmanager
def lean_statistics(folder: Path) -> Iterator[None]:
    """Let NNCF collect its statistics with this module; ``folder`` holds the graph's tables.

    Its own way would also lose the model-local functions of the graph.
    """
    from nncf.onnx.statistics.aggregator import ONNXStatisticsAggregator

    original = ONNXStatisticsAggregator.collect_statistics

    def collect(aggregator: Any, model: onnx.ModelProto, graph: Any) -> None:
        _collect(aggregator, model, graph, folder)

    ONNXStatisticsAggregator.collect_statistics = collect
    try:
        yield
    finally:
        ONNXStatisticsAggregator.collect_statistics = original


@dataclass(frozen=True)
class _Wanted:
    """A value of the graph, and who collects its statistics."""

    name: str
    collector: Any  # NNCF's, with reducers that each make one statistic of an array
    axes: tuple[int, ...] | None  # that all reducers reduce over; None: all
    extremes_suffice: bool

    def array(self, values: Values) -> NDArray[Any]:
        """What to give to the collector: the value itself, or an array with the same extremes."""
        if not self.extremes_suffice:
            return values[self.name]
        lowest, highest = (values[name] for name in (self.lowest, self.highest))
        axis = self.axes[0] if self.axes else 0
        return np.concatenate([np.atleast_1d(lowest), np.atleast_1d(highest)], axis=axis)

    @property
    def lowest(self) -> str:
        return f"{self.name}/lowest/{self.axes}"

    @property
    def highest(self) -> str:
        return f"{self.name}/highest/{self.axes}"

    @property
    def outputs(self) -> tuple[str, ...]:
        """The values that `array` needs."""
        return (self.lowest, self.highest) if self.extremes_suffice else (self.name,)


def _collect(aggregator: Any, model: onnx.ModelProto, graph: Any, folder: Path) -> None:
    """What NNCF's method of that name is for."""
    from edgekit.runtime.onnxruntime import open_session

    stored = constants(model)
    measured: list[_Wanted] = []
    for each in _wanted(aggregator.statistic_points, model, graph):
        if each.name in stored:
            _give(each.collector, numpy_helper.to_array(stored[each.name], str(folder)))
        else:
            measured.append(each)
    if not measured:
        return
    # It uses as many threads as this process may; NNCF's would be as many as the machine has cores.
    session = open_session(_measuring(model, measured).SerializeToString(), tables=folder)
    names = [output.name for output in session.get_outputs()]
    images = aggregator.dataset.get_inference_data()
    for image in islice(images, aggregator._get_iterations_number()):
        values: Values = dict(zip(names, session.run(names, image), strict=True))
        for each in measured:
            _give(each.collector, each.array(values))


def _wanted(points: Any, model: onnx.ModelProto, graph: Any) -> Iterator[_Wanted]:
    from nncf.common.tensor_statistics.collectors import AbsMaxReducer, MaxReducer, MinReducer
    from nncf.onnx.graph.model_transformer import ONNXModelTransformer
    from nncf.onnx.graph.node_utils import get_input_edges_mapping

    inputs = get_input_edges_mapping(graph)
    nodes = {node.name: node for node in model.graph.node}
    for _, point, collector in points.get_tensor_collectors():
        target = point.target_point
        name = ONNXModelTransformer._get_target_edge(
            target.port_id, target.target_node_name, target.type, nodes, inputs
        )
        reducers = collector.reducers
        # Compared by class: a subclass may ask for more.
        extremes = all(type(one) in (MinReducer, MaxReducer, AbsMaxReducer) for one in reducers)
        axes = {(one._axes, one._axes_mode.value) for one in reducers}
        alike = len(axes) == 1 and all(mode == "reduction" for _, mode in axes)
        yield _Wanted(name, collector, next(iter(axes))[0], extremes and alike)


def _measuring(model: onnx.ModelProto, wanted: list[_Wanted]) -> onnx.ModelProto:
    """A copy of ``model`` whose outputs are what is ``wanted``."""
    copy = copied(model)
    del copy.graph.output[:]
    made: set[str] = set()
    for each in wanted:
        if made >= set(each.outputs):
            continue
        made.update(each.outputs)
        if each.extremes_suffice:
            reduce_over(copy, "ReduceMin", each.name, each.axes, each.lowest, keep=True)
            reduce_over(copy, "ReduceMax", each.name, each.axes, each.highest, keep=True)
        add_outputs(copy, each.outputs)
    return copy


def _give(collector: Any, array: NDArray[Any]) -> None:
    from nncf.tensor import Tensor

    collector.register_input_for_all_reducers(Tensor(array))
