"""A build that takes seconds."""

from pathlib import Path
from typing import Any

from edgekit.steps.config import BuildConfig

HERE, ELSEWHERE = "onnxruntime-cpu", "jetson-orin-nano"


def settings(model: Path, out: Path, **changes: Any) -> BuildConfig:
    """The settings of one, of the model in a folder that the fixture ``model`` made."""
    values: dict[str, Any] = {
        "checkpoint": str(model / "it's a model.safetensors"),
        "data": str(model / "levels.npz"),
        "target": (HERE,),
        "out": str(out),
        "recipe": str(model / "tiny.toml"),
        "guard": False,
        "bench_seconds": 0.05,
        "parity_images": 2,
    }
    return BuildConfig(**(values | changes))
