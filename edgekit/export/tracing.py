"""The torch side of the export: a model whose lookup becomes one node, and its traced graph."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekit.core.errors import EdgekitError
from edgekit.export.report import Batch
from edgekit.graph.lookup import OPERATOR_VERSION, LookupSpec, Metric
from edgekit.model import codebook as training
from edgekit.model.backbones.base import Backbone
from edgekit.model.config import Quantize
from edgekit.model.fold import FOLDABLE, FoldReport, fold
from edgekit.model.onnx_graph import onnx_graph
from edgekit.model.vqsa import VQSA
from edgekit.targets.operators import DOMAIN, LOOKUP


class NodeLookup(nn.Module):
    """Replaces `edgekit.model.fold.Lookup`, to be exported as one CodebookLookup node."""

    codebook: Tensor

    def __init__(self, codebook: Tensor, metric: Metric, margin: bool) -> None:
        super().__init__()
        self.spec = LookupSpec(metric, margin, rows=codebook.shape[0])
        self.register_buffer("codebook", codebook)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """[..., D] -> code [...], margin [...]; without a margin, the code takes its place."""
        flat = features.flatten(0, -2)
        types = (torch.int64, torch.float32) if self.spec.margin else (torch.int64,)
        outputs = torch.onnx.ops.symbolic_multi_out(
            f"{DOMAIN}::{LOOKUP}",
            (flat, self.codebook),
            {**self.spec.attributes()},
            dtypes=types,
            shapes=((flat.shape[0],),) * len(types),
            version=OPERATOR_VERSION,
        )
        code, margin = outputs[0], outputs[-1]
        return code.reshape(features.shape[:-1]), margin.reshape(features.shape[:-1])


class NodeCodebook(nn.Module):
    """Replaces `edgekit.model.codebook.Codebook` in a head that is not folded."""

    norm: Tensor

    def __init__(self, codebook: training.Codebook, margin: bool) -> None:
        super().__init__()
        rows = codebook.embeddings.detach()
        cosine = codebook.config.distance == "cosine"
        # Unit rows times their norms: this saves storing the rows themselves as well.
        norm = rows.double().norm(dim=1).to(rows) if cosine else rows.new_ones(len(rows))
        self.register_buffer("norm", norm)
        self.lookup = NodeLookup(
            training.normalize_rows(rows) if cosine else rows, "dot" if cosine else "l2", margin
        )

    def forward(self, features: Tensor) -> training.NearestCodewords:
        """Like the codebook it replaces; the losses are zero."""
        code, margin = self.lookup(features)
        codeword = F.embedding(code, self.lookup.codebook) * self.norm[code].unsqueeze(-1)
        zero = features.new_zeros(())
        return training.NearestCodewords(codeword, code, margin, zero, zero)


class Deployed(nn.Module):
    """Images [B, 3, H, W] to the outputs of the ONNX file, in its order."""

    def __init__(
        self, backbone: Backbone, head: nn.Module, quantize: Quantize, outputs: tuple[str, ...]
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.quantize: Quantize = quantize
        self.outputs = outputs

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Run backbone and head, and return the exported outputs."""
        output = self.head(self.backbone.features(images, self.quantize))
        return tuple(output[: len(self.outputs)])


@dataclass(frozen=True)
class Prepared:
    """A model that is ready to be traced."""

    model: Deployed
    lookup: LookupSpec | None  # None: the model has no codebook
    fold: FoldReport


def prepare(model: VQSA, *, tables: bool, margin: bool, folded: bool = True) -> Prepared:
    """Fold the model if possible, and give it a lookup that exports as one node."""
    backbone, quantize = model.backbone, model.config.quantize
    if model.head.codebook is None:
        report = FoldReport(False, "no codebook: exported as a plain classifier")
        return Prepared(Deployed(backbone, model.head, quantize, ("logits",)), None, report)
    outputs = ("logits", "code", "margin") if margin else ("logits", "code")
    deployed, report = (
        fold(model, tables=tables) if folded else (None, FoldReport(False, "not folded, as asked"))
    )
    if deployed is not None:
        metric: Metric = "l2" if deployed.head.lookup.metric == "l2" else "dot"
        lookup = NodeLookup(deployed.head.lookup.codebook, metric, margin)
        deployed.head.lookup = lookup  # type: ignore[assignment] # designed to be replaced
        return Prepared(Deployed(backbone, deployed.head, quantize, outputs), lookup.spec, report)
    stand_in = NodeCodebook(model.head.codebook, margin)
    # A copy of the head with the stand-in as its codebook; the model itself does not change.
    head = copy.deepcopy(model.head, {id(model.head.codebook): stand_in})
    return Prepared(Deployed(backbone, head, quantize, outputs), stand_in.lookup.spec, report)


def weight_bytes(model: VQSA, *, tables: bool) -> int:
    """The size of the exported weights, close enough to tell whether they fit into one file."""
    values = sum(tensor.numel() for tensor in model.state_dict().values())
    if tables and model.config.output in FOLDABLE and model.config.quantize == "pooled":
        values += 2 * model.head.width * model.config.codebook_size
    return int(4 * values)


def trace(prepared: Prepared, size: tuple[int, int], opset: int, batch: Batch) -> onnx.ModelProto:
    """The ONNX graph of a prepared model, for images of ``size`` (height, width)."""
    dynamic = batch == "dynamic"
    example = torch.zeros(2 if batch == "dynamic" else batch, 3, *size)
    try:
        return onnx_graph(
            prepared.model, example, prepared.model.outputs, opset, any_number=dynamic
        )
    except EdgekitError as error:
        raise EdgekitError(f"{error}; try --batch 1") if dynamic else error from error
