"""The interface of backbones."""

from __future__ import annotations

from torch import Tensor, nn

from edgekit.model.config import Quantize


class Backbone(nn.Module):
    """An image network without its classifier; `forward` returns a feature map [B, D, h, w]."""

    channels: int  # D of the map
    # False: training must expect parameters without gradients, such as an unused classifier's.
    uses_all_parameters: bool = True
    source: str = ""  # a hash of the code outside edgekit that it is made of

    def pooled(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, D], the global average."""
        feature: Tensor = self(images).mean(dim=(2, 3))
        return feature

    def vectors(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, P, D], one vector per position, row by row."""
        positions: Tensor = self(images).flatten(2).transpose(1, 2)
        return positions

    def features(self, images: Tensor, quantize: Quantize) -> Tensor:
        """What a head looks up: `vectors` if quantization is spatial, else `pooled`."""
        return self.vectors(images) if quantize == "spatial" else self.pooled(images)

    def width(self, quantize: Quantize) -> int:
        """D of `features`; pooled and spatial differ in some timm models."""
        return self.channels
