"""How pixels become a foreign network's input: what the user says, checked against the file."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.core.errors import UsageError
from edgekit.core.typed_toml import meant, read_toml
from edgekit.data.transforms import (
    IMAGENET,
    LITE0,
    ChannelOrder,
    Interpolation,
    Preprocessing,
    Resize,
)
from edgekit.foreign.tensors import Layout, Tensor

_PRESETS = {"imagenet": IMAGENET, "lite0": LITE0}
_HELP = "--preprocessing imagenet, lite0, timm:NAME or FILE.toml"
_TIMM = "timm:"


@dataclass(frozen=True)
class _File:
    """The keys of a preprocessing file; what is None is read from the model's file."""

    mean: tuple[float, ...]  # in gray levels, 0 to 255
    std: tuple[float, ...]
    size: tuple[int, ...] | None = None  # height, width
    resize: Resize = "shortest-side"
    crop_ratio: float = 0.875
    interpolation: Interpolation = "bilinear"
    channel_order: ChannelOrder = "RGB"
    layout: Layout | None = None
    scale: float | None = None  # of an integer input: real = scale * (stored - zero_point)
    zero_point: int | None = None


@dataclass(frozen=True)
class Asked:
    """What the user says of the preprocessing; None is left to the model's file."""

    preprocessing: Preprocessing
    size: tuple[int, int] | None
    layout: Layout | None = None
    scale: float | None = None
    zero_point: int | None = None


@dataclass(frozen=True)
class InputForm:
    """How normalized pixels lie in the input tensor."""

    layout: Layout
    dtype: np.dtype[Any]
    scale: float | None  # None: the tensor holds the normalized values themselves
    zero_point: int

    def tensor(self, normalized: NDArray[np.float32]) -> NDArray[Any]:
        """The input tensor for normalized pixels, float32 [B, 3, height, width]."""
        values = normalized if self.layout == "NCHW" else normalized.transpose(0, 2, 3, 1)
        if self.scale is not None:
            limits = np.iinfo(self.dtype)
            steps = np.rint(values / np.float32(self.scale)) + self.zero_point
            values = steps.clip(limits.min, limits.max)
        return np.ascontiguousarray(values, self.dtype)

    def describe(self) -> str:
        """For one line."""
        text = f"{self.layout} {self.dtype}"
        return text if self.scale is None else f"{text}, {self.scale:g} x (q - {self.zero_point})"


def read_preprocessing(text: str | None, source: str) -> Asked:
    """The preprocessing that ``text`` names; ``source`` is the classifier that it is for."""
    if text is None:
        raise UsageError(f"{source} does not say how its pixels are prepared: say so, {_HELP}")
    if text in _PRESETS:
        return Asked(_PRESETS[text], None)
    if text.startswith(_TIMM):
        return Asked(_of_timm(text.removeprefix(_TIMM)), None)
    path = Path(text)
    if path.suffix != ".toml":
        hint = meant(text, _PRESETS)
        raise UsageError(f"no preprocessing is called '{text}'{hint}: {_HELP}")
    told = read_toml(path, _File)
    if told.size is not None and len(told.size) != 2:
        raise UsageError(f"{path}: size must be height and width, not {list(told.size)}")
    names = ("resize", "crop_ratio", "interpolation", "mean", "std", "channel_order")
    settings: dict[str, Any] = {name: getattr(told, name) for name in names}
    size = None if told.size is None else (told.size[0], told.size[1])
    if size is not None:
        settings["size"] = size
    if told.scale is not None and not told.scale > 0:
        raise UsageError(f"{path}: scale must be positive, not {told.scale}")
    try:
        preprocessing = Preprocessing(**settings)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    return Asked(preprocessing, size, told.layout, told.scale, told.zero_point)


def _of_timm(name: str) -> Preprocessing:
    """What timm's own evaluation does for a pretrained model of this name."""
    from edgekit.model.backbones.timm import import_timm

    import_timm()
    from timm.data import resolve_data_config
    from timm.models import get_pretrained_cfg, list_models

    found = get_pretrained_cfg(name)
    if found is None:
        hint = meant(name, {known.split(".")[0] for known in list_models(pretrained=True)})
        raise UsageError(f"timm knows no model '{name}'{hint}, so it has no preprocessing for it")
    told = resolve_data_config(pretrained_cfg=found.to_dict())
    _, height, width = told["input_size"]
    if told["crop_mode"] not in ("center", "squash"):
        raise UsageError(
            f"timm prepares {name} with crop mode '{told['crop_mode']}', which edgekit has not: "
            "describe what comes closest in a FILE.toml"
        )
    return Preprocessing(
        size=(height, width),
        resize="squash" if told["crop_mode"] == "squash" else "shortest-side",
        crop_ratio=told["crop_pct"],
        interpolation=told["interpolation"],
        mean=tuple(255 * value for value in told["mean"]),
        std=tuple(255 * value for value in told["std"]),
    )


def settle(asked: Asked, tensor: Tensor, source: str) -> tuple[Preprocessing, InputForm]:
    """What the user says and what the file says of its input, brought together.

    Of a size that both give, the file's counts only where the user named none: a preset is at home
    at many sizes, a file says what it means.
    """
    layout = _layout(asked, tensor, source)
    rows, columns = (2, 3) if layout == "NCHW" else (1, 2)
    sides = tensor.shape[rows], tensor.shape[columns]
    size = asked.size or tuple(
        side or told for side, told in zip(sides, asked.preprocessing.size, strict=True)
    )
    for side, told in zip(sides, size, strict=True):
        if side not in (None, told):
            raise UsageError(
                f"{source} takes images of {sides[0]} x {sides[1]} px, the preprocessing says "
                f"{size[0]} x {size[1]}: leave its size out"
            )
    preprocessing = dataclasses.replace(asked.preprocessing, size=(size[0], size[1]))
    return preprocessing, _form(asked, tensor, layout, source)


def _layout(asked: Asked, tensor: Tensor, source: str) -> Layout:
    shape = tensor.shape
    if len(shape) != 4:
        raise UsageError(f"{source} is no image classifier: its input is {tensor.describe()}")
    first, last = shape[1] == 3, shape[3] == 3
    if asked.layout is not None:
        channels = shape[1 if asked.layout == "NCHW" else 3]
        if channels not in (3, None):
            raise UsageError(
                f"{source}: its input {tensor.describe()} has {channels} channels in layout "
                f"{asked.layout}, images have 3"
            )
        return asked.layout
    if first == last:
        raise UsageError(
            f"{source}: where its input {tensor.describe()} has the 3 colors is not clear: set "
            'layout = "NCHW" or "NHWC" in a preprocessing FILE.toml'
        )
    return "NCHW" if first else "NHWC"


def _form(asked: Asked, tensor: Tensor, layout: Layout, source: str) -> InputForm:
    kind = tensor.dtype
    if kind.kind == "f":
        if asked.scale is not None:
            raise UsageError(f"{source}: its input is {kind}, which takes no scale: leave it out")
        return InputForm(layout, kind, None, 0)
    if kind.kind not in "iu":
        raise UsageError(f"{source}: edgekit does not feed inputs of type {kind}")
    scale = asked.scale or tensor.scale
    if scale is None:
        raise UsageError(
            f"{source} takes {kind} and does not say what its steps mean: set scale and "
            "zero_point in a preprocessing FILE.toml (1 and 0, mean 0, std 1: pixels as they are)"
        )
    zero_point = tensor.zero_point if asked.zero_point is None else asked.zero_point
    return InputForm(layout, kind, scale, zero_point)
