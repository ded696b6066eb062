"""DenoiseRep: layers learn to predict the noise in their output, and subtract a share of it.

After Xu, Wang, Huang and Sang, "DenoiseRep: Denoising Model for Representation Learning", NeurIPS
2024 (arXiv 2406.08773). Behind a layer y = Wx + b stands y - cDy, where D mixes channels at each
position. Both are linear, so afterwards they are one layer: W' = (I - cD) W, b' = (I - cD) b.
A batch norm that follows a layer follows both, so whatever it does, the fusion is exact.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekit.core.errors import UsageError
from edgekit.model.backbones.efficientnet_lite import SamePadConv2d
from edgekit.model.vqsa import VQSA
from edgekit.training.methods.method import Method
from edgekit.training.methods.replacing import replace

SHARE = 0.5  # c: what is subtracted of the predicted noise
NOISE = 0.3  # standard deviation of the added noise, of outputs whose mean square is 1
_POSITIONS = 16  # of each image and layer, from which D learns: neighbors say much the same
_TINY = 1e-12  # an image's output may be all zeros
# By exact type: other convolutions may compute with something else than their weight.
_LAYERS = (nn.Conv2d, SamePadConv2d, nn.Linear)


class Denoised(nn.Module):
    """A layer, and the subtraction of what is predicted to be noise in its output.

    Groups of a convolution have different inputs, so D mixes the channels within each alone:
    it is block-diagonal, with as many blocks as groups.
    """

    def __init__(self, layer: nn.Conv2d | nn.Linear) -> None:
        super().__init__()
        self.layer = layer
        self.groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
        self.channels = len(layer.weight)
        self.block = self.channels // self.groups
        # D / sqrt(block): one learning rate then suits layers of every width.
        self.scaled = nn.Parameter(layer.weight.new_zeros(self.channels, self.block))
        self.outputs: list[Tensor] = []  # of this step, for the loss

    @property
    def matrix(self) -> Tensor:
        """D, its blocks one above the other: [channels, block]."""
        return self.scaled * math.sqrt(self.block)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output without ``SHARE`` of its noise."""
        output: Tensor = self.layer(x)
        if torch.is_grad_enabled():  # a training step; with fixed batch norm it is in eval mode
            self.outputs.append(output.detach())
        if isinstance(self.layer, nn.Conv2d):
            noise = F.conv2d(output, self.matrix[:, :, None, None], groups=self.groups)
        else:
            noise = F.linear(output, self.matrix)
        return output - SHARE * noise

    def taken(self, images: int) -> list[Tensor]:
        """This step's outputs, at some positions, as float [images, positions, channels]."""
        outputs, self.outputs = self.outputs, []
        return [self._sampled(output, images) for output in outputs]

    def _sampled(self, output: Tensor, images: int) -> Tensor:
        if len(output) % images:
            raise UsageError(
                "denoise finds a layer whose output has no dimension of images first: leave "
                "--denoise out, it does not fit this backbone"
            )
        if isinstance(self.layer, nn.Conv2d):
            vectors = output.flatten(2).transpose(1, 2)
        else:
            vectors = output.reshape(len(output), -1, self.channels)
        # Some networks cut an image into windows, each of which is a row then.
        wanted = max(1, _POSITIONS * images // len(output))
        step = -(-vectors.shape[1] // wanted)
        return vectors[:, ::step].float().reshape(images, -1, self.channels)

    def term(self, outputs: Tensor, pairs: bool) -> Tensor:
        """Mean squared error of D, which predicts noise in ``outputs`` [B, P, channels].

        The noise to predict is what corruption changed (of pairs, clean before corrupted), and
        Gaussian noise n on top. As D is linear, the mean over n needs no draw:
        E |D(y + n) - (d + n)|^2 = |Dy - d|^2 + NOISE^2 |D - I|^2, with |.| of Frobenius.
        """
        square = outputs.square().mean(dim=(1, 2), keepdim=True)
        change = torch.zeros_like(outputs)
        if pairs:
            square = square[::2].repeat_interleave(2, dim=0)  # of the clean image for both
            change[1::2] = outputs[1::2] - outputs[::2]
        scale = (square + _TINY).rsqrt()
        blocks = self.matrix.unflatten(0, (self.groups, self.block))
        y = (outputs * scale).unflatten(2, (self.groups, self.block))
        predicted = torch.einsum("gij,bpgj->bpgi", blocks, y).flatten(2)
        identity = torch.eye(self.block, device=blocks.device)
        added = NOISE**2 * (blocks - identity).square().sum() / self.channels
        error: Tensor = (predicted - change * scale).square().mean() + added
        return error

    @torch.no_grad()
    def fused(self) -> nn.Conv2d | nn.Linear:
        """The layer with the subtraction in its weight and bias."""
        blocks = self.matrix.double().unflatten(0, (self.groups, self.block))
        for parameter in (self.layer.weight, self.layer.bias):
            if parameter is not None:
                rows = parameter.double().reshape(self.groups, self.block, -1)
                parameter.copy_((rows - SHARE * (blocks @ rows)).reshape(parameter.shape))
        return self.layer


class Denoise(Method):
    """Denoising layers behind all layers of a backbone that do not widen."""

    name = "denoise"

    def __init__(self, weight: float, model: VQSA, *, pairs: bool) -> None:
        self._weight, self._pairs = weight, pairs
        self._layers: list[Denoised] = []
        if not any(_is_chosen(module) for module in model.backbone.modules()):
            raise UsageError(
                "denoise finds no layer to stand behind in this backbone: leave --denoise out"
            )

    def attach(self, model: VQSA) -> None:
        """See `Method`; D is zero, so the model answers as before."""
        twins: dict[nn.Module, Denoised] = {}  # a layer may have several places
        for name, module in list(model.backbone.named_modules(remove_duplicate=False)):
            if _is_chosen(module):
                twins.setdefault(module, Denoised(module))
                replace(model.backbone, name, twins[module])
        self._layers = list(twins.values())

    def loss(self, images: Tensor, features: Tensor) -> Tensor:
        """See `Method`: the mean over the layers. Only D learns from it."""
        with torch.autocast(images.device.type, enabled=False):
            terms = [
                layer.term(outputs, self._pairs)
                for layer in self._layers
                for outputs in layer.taken(len(images))
            ]
            return self._weight * torch.stack(terms).mean()

    def detach(self, model: VQSA) -> None:
        """See `Method`."""
        fused: dict[nn.Module, nn.Module] = {}
        for name, module in list(model.backbone.named_modules(remove_duplicate=False)):
            if isinstance(module, Denoised):
                if module not in fused:
                    fused[module] = module.fused()
                replace(model.backbone, name, fused[module])


def _is_chosen(module: nn.Module) -> bool:
    """Whether a denoising layer behind ``module`` costs no more than it does.

    A block of one channel is left out as well: batch norm or training would undo its scaling.
    """
    if type(module) not in _LAYERS:
        return False
    assert isinstance(module, nn.Conv2d | nn.Linear)
    groups = module.groups if isinstance(module, nn.Conv2d) else 1
    return 1 < len(module.weight) // groups <= module.weight[0].numel()
