"""The steps of a build, each a plain function from what it needs to what it made.

Steps whose result is worth keeping put it into the cache; none keeps state of its own. Heavy
packages are imported inside the step that needs them, so that a build with nothing to do starts
and ends without them.
"""

from edgekit.steps.bundling import (
    bundle_path,
    check_engine,
    command,
    compile_bundle,
    complete,
    pack,
)
from edgekit.steps.calibration import (
    calibrate,
    calibration_inputs,
    legal_onnx,
    probe_of,
    quantize,
    take_finetuned,
)
from edgekit.steps.float_model import (
    cached_export,
    export,
    export_inputs,
    known_checkpoint,
    load,
    name_classes,
    open_build_data,
)
from edgekit.steps.guard import HeldOut, check_graph, guard_graph, hold_out, judge, worst_layers
from edgekit.steps.job import Built, Checkpoint, Exported, Job, Quantized, precision

__all__ = [
    "Built",
    "Checkpoint",
    "Exported",
    "HeldOut",
    "Job",
    "Quantized",
    "bundle_path",
    "cached_export",
    "calibrate",
    "calibration_inputs",
    "check_engine",
    "check_graph",
    "command",
    "compile_bundle",
    "complete",
    "export",
    "export_inputs",
    "guard_graph",
    "hold_out",
    "judge",
    "known_checkpoint",
    "legal_onnx",
    "load",
    "name_classes",
    "open_build_data",
    "pack",
    "precision",
    "probe_of",
    "quantize",
    "take_finetuned",
    "worst_layers",
]
