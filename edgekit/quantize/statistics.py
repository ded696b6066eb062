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

from edgekit.core.errors import EdgekitError
from edgekit.graph.reductions import reduce_over
from edgekit.graph.view import constants, copied, drop_unused

Values = dict[str, NDArray[Any]]


@contextlib.contextmanager
def lean_statistics() -> Iterator[None]:
    """Let NNCF collect its statistics with this module, in one thread at a time.

    Its own way would also lose the model-local functions of the graph.
    """
    from nncf.onnx.statistics.aggregator import ONNXStatisticsAggregator

    original = ONNXStatisticsAggregator.collect_statistics
    ONNXStatisticsAggregator.collect_statistics = _collect
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

    def give(self, values: Values) -> None:
        """Let the collector have the value itself, or an array with the same extremes."""
        if not self.extremes_suffice:
            _give(self.collector, values[self.name])
            return
        if np.isnan(values[self._total]):  # which the extremes may hide
            raise EdgekitError(
                f"an image makes {self.name} of the float model not a number: check its weights "
                "and preprocessing"
            )
        lowest, highest = values[self._lowest], values[self._highest]
        if (lowest > highest).any():  # of nothing, which says nothing
            return
        axis = self.axes[0] if self.axes else 0
        ends = [np.atleast_1d(lowest), np.atleast_1d(highest)]
        _give(self.collector, np.concatenate(ends, axis=axis))

    @property
    def values(self) -> tuple[str, ...]:
        """What `give` needs."""
        if self.extremes_suffice:
            return (self._lowest, self._highest, self._total)
        return (self.name,)

    def compute(self, model: onnx.ModelProto) -> None:
        """Append what computes those values."""
        if self.extremes_suffice:
            reduce_over(model, "ReduceMin", self.name, self.axes, self._lowest, keep=True)
            reduce_over(model, "ReduceMax", self.name, self.axes, self._highest, keep=True)
            reduce_over(model, "ReduceSum", self.name, None, self._total, keep=False)

    @property
    def _lowest(self) -> str:
        return f"edgekit/{self.name}/lowest/{self.axes}"

    @property
    def _highest(self) -> str:
        return f"edgekit/{self.name}/highest/{self.axes}"

    @property
    def _total(self) -> str:
        return f"edgekit/{self.name}/total/{self.axes}"


def _collect(aggregator: Any, model: onnx.ModelProto, graph: Any) -> None:
    """What NNCF's method of that name is for."""
    import nncf
    from nncf.onnx.graph.model_metadata import MetadataKey, get_metadata

    from edgekit.runtime.onnxruntime import open_session

    folder = get_metadata(model, MetadataKey.EXTERNAL_DATA_DIR) or ""
    stored = constants(model)
    measured: list[_Wanted] = []
    for each in _wanted(aggregator.statistic_points, model, graph):
        if each.name in stored:
            _give(each.collector, numpy_helper.to_array(stored[each.name], folder))
        else:
            measured.append(each)
    if not measured:
        return
    # It uses as many threads as this process may; NNCF's would be as many as the machine has cores.
    session = open_session(
        _measuring(model, measured).SerializeToString(), tables=Path(folder) if folder else None
    )
    names = [output.name for output in session.get_outputs()]

    def measure(image: Values) -> None:  # whose values are gone before the next one's come
        values: Values = dict(zip(names, session.run(names, image), strict=True))
        for each in measured:
            each.give(values)

    images = 0
    data = aggregator.dataset.get_inference_data()
    for image in islice(data, aggregator._get_iterations_number()):
        measure(image)
        images += 1
    if not images:
        raise nncf.ValidationError("there are no calibration images")


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
        found = {(one._axes, one._axes_mode.value) for one in reducers}
        axes, mode = found.pop() if found else ((), "")
        # To NNCF, no axes are none to reduce over; to ONNX they are all.
        alike = not found and mode == "reduction" and axes != ()
        yield _Wanted(name, collector, axes, extremes and alike)


def _measuring(model: onnx.ModelProto, wanted: list[_Wanted]) -> onnx.ModelProto:
    """A copy of ``model`` that computes what is ``wanted``, and nothing else."""
    copy = copied(model)
    del copy.graph.output[:]
    outputs: dict[str, None] = {}
    for each in wanted:
        if not outputs.keys() >= set(each.values):
            each.compute(copy)
            outputs |= dict.fromkeys(each.values)
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    drop_unused(copy)
    return copy


def _give(collector: Any, array: NDArray[Any]) -> None:
    from nncf.tensor import Tensor

    collector.register_input_for_all_reducers(Tensor(array))
