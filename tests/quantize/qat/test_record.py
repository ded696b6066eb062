"""The record that a fine-tuned graph carries."""

import json
from typing import Any

import pytest
from onnx import TensorProto, helper, save

from edgekit.core.documents import DocumentError
from edgekit.quantize.qat.record import KEY, FinetuneRecord, read_finetuned, write_record

RECORD = FinetuneRecord(
    checkpoint="ab" * 32,
    dialect="openvino",
    recipe="cd" * 32,
    recipe_name="default",
    images="ef" * 32,
    data="photos",
    seen=("fog",),
    train_images=100,
    epochs=3,
    best_epoch=2,
    task_weight=1.0,
    distill_weight=0.5,
    code_weight=0.1,
    feature_weight=0.0,
    seed=0,
    code_agreement=None,
    mean_corruption_error=42.0,
)


def test_a_graph_gives_its_record_back(tmp_path: Any) -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    other = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    node = helper.make_node("Identity", ["x"], ["y"])
    graph = helper.make_model(helper.make_graph([node], "g", [value], [other]))
    write_record(graph, RECORD)
    save(graph, tmp_path / "model.onnx")
    assert read_finetuned(tmp_path / "model.onnx")[1] == RECORD
    for content in ("{", "[]", '{"schema": 9}'):
        next(entry for entry in graph.metadata_props if entry.key == KEY).value = content
        save(graph, tmp_path / "model.onnx")
        with pytest.raises(DocumentError) as error:
            read_finetuned(tmp_path / "model.onnx")
        assert "model.onnx: its record of the fine-tuning" in str(error.value)


def test_records_are_checked() -> None:
    plain = json.loads(json.dumps(RECORD.to_dict()))
    assert FinetuneRecord.from_dict(plain, "a test") == RECORD
    del plain["schema"]  # as earlier releases wrote them
    assert FinetuneRecord.from_dict(plain, "a test") == RECORD
    for name in plain:
        without = {key: value for key, value in plain.items() if key != name}
        with pytest.raises(DocumentError, match=f"missing key '{name}': run 'edgekit finetune'"):
            FinetuneRecord.from_dict(without, "a test")
        with pytest.raises(DocumentError, match=f"'{name}' must be"):
            FinetuneRecord.from_dict({**plain, name: {"a": 1}}, "a test")
