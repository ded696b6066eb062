"""A checkpoint in the authors' released layout, made up, and their forward pass by hand.

Shared by tests; nothing here uses edgekit's model code.
"""

import re

import torch
import torch.nn.functional as F
from torch import Tensor

STAGES = ((3, 64, 256), (4, 128, 512), (6, 256, 1024), (3, 512, 2048))


def authors_state(
    n: int = 1000, classes: int = 1000, seed: int = 0, d: int = 2048
) -> dict[str, Tensor]:
    """All 326 entries of the layout, with random weights of a trained net's magnitude."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        fan_in = 1
        for size in shape[1:]:
            fan_in *= size
        return torch.randn(*shape, generator=g) * (2 / fan_in) ** 0.5

    state: dict[str, Tensor] = {name: normal(d, d) for name in ("K", "Q", "V")}

    def norm(prefix: str, width: int, gain: float = 1.0) -> None:
        state[f"{prefix}.weight"] = gain * (0.8 + 0.4 * torch.rand(width, generator=g))
        state[f"{prefix}.bias"] = 0.1 * torch.randn(width, generator=g)
        state[f"{prefix}.running_mean"] = 0.1 * torch.randn(width, generator=g)
        state[f"{prefix}.running_var"] = 0.8 + 0.4 * torch.rand(width, generator=g)
        state[f"{prefix}.num_batches_tracked"] = torch.tensor(5000)

    state["resnet_layer.0.weight"] = normal(64, 3, 7, 7)
    norm("resnet_layer.1", 64)
    inputs = 64
    for stage, (count, planes, outputs) in enumerate(STAGES):
        for block in range(count):
            prefix = f"resnet_layer.{4 + stage}.{block}"
            state[f"{prefix}.conv1.weight"] = normal(planes, inputs, 1, 1)
            norm(f"{prefix}.bn1", planes)
            state[f"{prefix}.conv2.weight"] = normal(planes, planes, 3, 3)
            norm(f"{prefix}.bn2", planes)
            state[f"{prefix}.conv3.weight"] = normal(outputs, planes, 1, 1)
            norm(f"{prefix}.bn3", outputs, gain=0.3)
            if block == 0:
                state[f"{prefix}.downsample.0.weight"] = normal(outputs, inputs, 1, 1)
                norm(f"{prefix}.downsample.1", outputs)
            inputs = outputs
    state["codebook.embeddings.weight"] = torch.rand(n, d, generator=g) * 3
    state["fc_fuse.0.weight"] = normal(d, 2 * d)
    state["fc_fuse.0.bias"] = 0.1 * torch.randn(d, generator=g)
    state["fc.weight"] = normal(classes, d)
    state["fc.bias"] = 0.1 * torch.randn(classes, generator=g)
    return state


def authors_file(state: dict[str, Tensor]) -> dict[str, object]:
    """The dict that the released training script saves."""
    return {
        "model": state,
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
        "lr_schedule": {"last_epoch": 89},
        "epoch": 89,
        "best_acc": 76.6,
    }


def authors_forward(state: dict[str, Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [B, classes] and codes [B] of the released evaluation, step by step."""

    def norm(x: Tensor, prefix: str) -> Tensor:
        names = ("running_mean", "running_var", "weight", "bias")
        mean, var, weight, bias = (state[f"{prefix}.{name}"] for name in names)
        return F.batch_norm(x, mean, var, weight, bias)

    x = F.conv2d(images, state["resnet_layer.0.weight"], stride=2, padding=3)
    x = F.max_pool2d(F.relu(norm(x, "resnet_layer.1")), 3, 2, 1)
    blocks = sorted({m[0] for key in state if (m := re.match(r"resnet_layer\.[4-7]\.\d+", key))})
    for prefix in blocks:
        stride = 2 if prefix.endswith(".0") and not prefix.startswith("resnet_layer.4") else 1
        y = F.relu(norm(F.conv2d(x, state[f"{prefix}.conv1.weight"]), f"{prefix}.bn1"))
        y = F.conv2d(y, state[f"{prefix}.conv2.weight"], stride=stride, padding=1)
        y = F.relu(norm(y, f"{prefix}.bn2"))
        y = norm(F.conv2d(y, state[f"{prefix}.conv3.weight"]), f"{prefix}.bn3")
        if f"{prefix}.downsample.0.weight" in state:
            x = F.conv2d(x, state[f"{prefix}.downsample.0.weight"], stride=stride)
            x = norm(x, f"{prefix}.downsample.1")
        x = F.relu(x + y)
    return authors_head(state, x.mean(dim=(2, 3)))


def authors_head(state: dict[str, Tensor], feat: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and codes of pooled features [B, D]."""
    fused, code = authors_fused(state, feat)
    return F.linear(fused, state["fc.weight"], state["fc.bias"]), code


def authors_fused(state: dict[str, Tensor], feat: Tensor) -> tuple[Tensor, Tensor]:
    """What the classifier is given [B, D], and the codes."""
    embeddings = state["codebook.embeddings.weight"]
    unit_feat = feat / feat.norm(dim=1, keepdim=True)
    unit_rows = embeddings / embeddings.norm(dim=1, keepdim=True)
    distance = (unit_feat[:, None, :] - unit_rows[None]).square().sum(dim=2)
    code = distance.argmin(dim=1)
    quantized = embeddings[code]  # un-normalized

    tokens = torch.stack([quantized, feat], dim=2)  # [B, D, 2]
    key, query, value = (state[name] @ tokens for name in ("K", "Q", "V"))
    attention = torch.softmax(key.transpose(1, 2) @ query, dim=1)  # [B, 2, 2]
    mixed = (value @ attention).permute(0, 2, 1).flatten(1)  # [B, 2D], quantized slot first
    return F.relu(F.linear(mixed, state["fc_fuse.0.weight"], state["fc_fuse.0.bias"])), code
