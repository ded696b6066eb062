"""Any timm model as a backbone: running it once tells its width and the layout of its map."""

from __future__ import annotations

import copy
import importlib.util
import pickle
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgekit.core.errors import ToolchainMissing, UsageError
from edgekit.core.packages import install_command
from edgekit.data.transforms import Interpolation
from edgekit.model.backbones.base import Backbone
from edgekit.model.config import Quantize

# Keeps the declarations of `_declare_missing_torchvision_ops` alive for the process.
_DECLARED: list[torch.library.Library] = []


class TimmBackbone(Backbone):
    """A timm model without its classifier.

    `pooled` is timm's own pooled feature (a class token, a global average, or the output of a head
    convolution); `vectors` are the positions of its last feature map, without prefix tokens. The
    two may differ in width, hence `width`.

    ``size`` is the images' height and width; None is the model's default. Convolutions take any
    size; a model whose position embeddings or windows depend on it is built for this one.
    """

    prefix = "backbone.model."  # of timm's names, in a checkpoint of ours

    def __init__(self, name: str, size: tuple[int, int] | None = None) -> None:
        super().__init__()
        timm = import_timm()
        if not timm.is_model(name):
            close = timm.list_models(f"*{name.split('.')[0].split('_')[0]}*")[:3]
            hint = f" (such as {', '.join(close)})" if close else ""
            raise UsageError(f"timm has no model '{name}'{hint}; see timm.list_models()")
        self.name = name
        self._is_sized = bool(getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False))
        options = {"img_size": size} if size is not None and self._is_sized else {}
        with _refused(name, size):
            self.model = timm.create_model(name, pretrained=False, num_classes=0, **options)
        data: dict[str, Any] = timm.data.resolve_model_data_config(self.model)
        self.input_size: tuple[int, int] = size or (data["input_size"][1], data["input_size"][2])
        self.mean: tuple[float, ...] = tuple(data["mean"])
        self.std: tuple[float, ...] = tuple(data["std"])
        self.interpolation: Interpolation = data["interpolation"]
        self.crop_ratio: float = data["crop_pct"]
        last = self.model.pretrained_cfg.get("classifier") or ()
        self.classifiers: tuple[str, ...] = (last,) if isinstance(last, str) else tuple(last)
        was_training = self.model.training
        self.model.eval()  # batch norm refuses one image in training mode
        with torch.no_grad(), _refused(name, size):
            probe = torch.zeros(1, 3, *self.input_size)
            self._widths: dict[Quantize, int] = {
                "pooled": self.pooled(probe).shape[-1],
                "spatial": self.vectors(probe).shape[-1],
            }
        self.model.train(was_training)
        self.channels = self._widths["spatial"]

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> the last feature map in timm's own layout."""
        features: Tensor = self.model.forward_features(images)
        return features

    def pooled(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, D]."""
        feature: Tensor = self.model.forward_head(self(images), pre_logits=True)
        return feature

    def vectors(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, P, D]."""
        features: Tensor = self(images)
        if features.dim() == 3:  # tokens: transformers
            return features[:, getattr(self.model, "num_prefix_tokens", 0) :]
        if getattr(self.model, "output_fmt", "NCHW") == "NHWC":  # Swin and its kin
            return features.flatten(1, 2)
        return features.flatten(2).transpose(1, 2)

    def width(self, quantize: Quantize) -> int:
        """D of `pooled` or of `vectors`."""
        return self._widths[quantize]

    def at_size(self, size: tuple[int, int]) -> TimmBackbone:
        """This network for images of that size, with position embeddings resampled where needed."""
        if not self._is_sized or size == self.input_size:
            return self
        other = TimmBackbone(self.name, size)
        family = sys.modules[type(other.model).__module__]
        adapt = getattr(family, "checkpoint_filter_fn", lambda state, _: state)
        with _refused(self.name, size):
            other.model.load_state_dict(adapt(self.model.state_dict(), other.model))
        return other

    def fits(self, state: Mapping[str, Tensor]) -> bool:
        """Whether timm's ``state`` is of this size, as far as their shapes can tell."""
        own = self.model.state_dict()
        return all(own[name].shape == one.shape for name, one in state.items() if name in own)

    def __reduce__(self) -> tuple[Any, ...]:
        # As bytes, which `_unpacked` reads after `import_timm`: in a worker process, importing
        # timm directly may fail.
        return _unpacked, (pickle.dumps(self.__dict__, protocol=5),)

    def __deepcopy__(self, memo: dict[int, Any]) -> TimmBackbone:
        # Not through `__reduce__`: hooks can be copied, but not pickled.
        twin = TimmBackbone.__new__(TimmBackbone)
        memo[id(self)] = twin
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return twin


@contextmanager
def _refused(name: str, size: tuple[int, int] | None) -> Iterator[None]:
    """What timm raises because images of this size do not suit the model, as a line."""
    try:
        yield
    except (RuntimeError, AssertionError, ValueError) as error:
        if size is None:
            raise
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UsageError(
            f"timm:{name} does not take images of {size[0]} x {size[1]}: {reason.rstrip('.:')}: "
            "choose another size, or leave it out"
        ) from error


def _unpacked(state: bytes) -> TimmBackbone:
    import_timm()
    backbone = TimmBackbone.__new__(TimmBackbone)
    backbone.__dict__.update(pickle.loads(state))
    return backbone


def import_timm() -> Any:
    """Import timm; the only place that works around torchvision's missing extension."""
    if importlib.util.find_spec("timm") is None:
        raise ToolchainMissing(f"timm is not installed: run {install_command('timm')}")
    _declare_missing_torchvision_ops()
    import timm
    import timm.data

    return timm


def _declare_missing_torchvision_ops() -> None:
    """Let torchvision import where its compiled extension cannot be loaded.

    torchvision registers shape rules for its operators at import, and fails if the extension
    that declares them did not load (a CPU-only torch beside a CUDA torchvision). Backbones use
    none of these operators, so declaring their signatures is enough.
    """
    spec = importlib.util.find_spec("torchvision")
    if _DECLARED or spec is None or spec.origin is None:
        return
    for extension in Path(spec.origin).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(str(extension))
        except OSError:
            continue
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define(
        "qnms(Tensor boxes, Tensor scores, Tensor order, Tensor areas, float iou) -> Tensor"
    )
    _DECLARED.append(library)
