"""Checkpoints that others wrote: the authors' VQ-SA release and plain classifiers.

Each layout is a list of name prefixes, theirs and ours, which translates keys both ways: weights
load under our names, and errors use the file's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from edgekit.core.errors import UsageError
from edgekit.model.backbones.efficientnet_lite import LITE0_NAMES

State = dict[str, Tensor]
Prefixes = tuple[tuple[str, str], ...]  # (theirs, ours); the first that matches applies

_AUTHORS: Prefixes = (
    ("resnet_layer.0.", "backbone.conv1."),
    ("resnet_layer.1.", "backbone.bn1."),
    ("resnet_layer.4.", "backbone.layer1."),
    ("resnet_layer.5.", "backbone.layer2."),
    ("resnet_layer.6.", "backbone.layer3."),
    ("resnet_layer.7.", "backbone.layer4."),
    ("K", "head.attention.key"),
    ("Q", "head.attention.query"),
    ("V", "head.attention.value"),
    ("codebook.embeddings.weight", "head.codebook.embeddings"),
    ("fc_fuse.0.", "head.fuse."),
    ("fc.", "head.classifier."),
)
_RESNET: Prefixes = (("fc.", "head.classifier."), ("", "backbone."))
_LITE0: Prefixes = (
    ("_fc.", "head.classifier."),
    *((theirs, f"backbone.{ours}") for theirs, ours in LITE0_NAMES),
)

# (bottleneck blocks, blocks per stage) -> name
_RESNETS: dict[tuple[bool, tuple[int, ...]], str] = {
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101",
}


@dataclass(frozen=True)
class Recognized:
    """A foreign state under our names."""

    layout: Literal["authors", "plain"]
    backbone: str
    state: State
    prefixes: Prefixes

    def theirs(self, key: str) -> str:
        """The file's name for our ``key``."""
        for theirs, ours in self.prefixes:
            if key.startswith(ours):
                return theirs + key.removeprefix(ours)
        return key


def recognize(state: State, source: str) -> Recognized:
    """Translate a foreign ``state`` into our names; an unknown layout is an error."""
    if len({"K", "Q", "V", "codebook.embeddings.weight"} & set(state)) > 1:
        ours = translate(state, _AUTHORS)
        keys = {key.removeprefix("backbone.") for key in ours}
        return Recognized("authors", _which_resnet(keys, source), ours, _AUTHORS)
    if "conv1.weight" in state and "layer1.0.conv1.weight" in state:
        backbone = _which_resnet(set(state), source)
        return Recognized("plain", backbone, translate(state, _RESNET), _RESNET)
    if "_conv_stem.weight" in state:
        return Recognized("plain", "efficientnet-lite0", translate(state, _LITE0), _LITE0)
    keys_text = ", ".join(list(state)[:3])
    raise UsageError(
        f"{source} is not a checkpoint that edgekit knows (keys: {keys_text}, ...): it reads its "
        "own, the released VQ-SA layout, and plain resnet18/34/50/101 and efficientnet-lite0 "
        "classifiers; for others add --backbone timm:NAME or module:function (to "
        "'edgekit export', for a command without that option)"
    )


def recognize_named(
    state: State, backbone: str, prefix: str, classifiers: tuple[str, ...]
) -> Recognized:
    """A classifier whose model the user named; ``classifiers`` are its last layers' names.

    ``prefix`` is that of our names for all others.
    """
    if len(classifiers) > 1:  # distilled models, which answer with the mean of two
        raise UsageError(
            f"{backbone} has {len(classifiers)} classifiers ({', '.join(classifiers)}), of which "
            "edgekit takes one: export it as ONNX, for 'edgekit calibrate model.onnx'"
        )
    prefixes: Prefixes = (
        *((f"{name}.", "head.classifier.") for name in classifiers),
        ("", prefix),
    )
    ours = translate(state, prefixes)
    weight = ours.get("head.classifier.weight")
    if weight is not None and weight.dim() == 4 and weight.shape[2:] == (1, 1):
        ours["head.classifier.weight"] = weight.flatten(1)  # some classify by a 1 x 1 convolution
    return Recognized("plain", backbone, ours, prefixes)


def translate(state: State, prefixes: Prefixes) -> State:
    """``state`` under our names; a key that no prefix matches keeps its name."""
    renamed = {}
    for key, value in state.items():
        for theirs, ours in prefixes:
            if key.startswith(theirs) and (not theirs.isupper() or key == theirs):
                key = ours + key.removeprefix(theirs)
                break
        renamed[key] = value
    return renamed


def _which_resnet(keys: set[str], source: str) -> str:
    stages = []
    for stage in range(1, 5):
        blocks = {match[1] for key in keys if (match := re.match(rf"layer{stage}\.(\d+)\.", key))}
        stages.append(len(blocks))
    bottleneck = "layer1.0.conv3.weight" in keys
    name = _RESNETS.get((bottleneck, tuple(stages)))
    if name is None:
        kind = "bottleneck" if bottleneck else "basic"
        raise UsageError(
            f"{source} holds a ResNet with {'-'.join(map(str, stages))} {kind} blocks, which is "
            "none of resnet18, 34, 50, 101: keys are missing, or use --backbone timm:NAME"
        )
    return name
