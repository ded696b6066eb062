"""The settings of `edgekit finetune`: the command's options, which are its TOML file's keys."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekit.core.errors import UsageError
from edgekit.core.typed_toml import at_least

AUTO = "auto"
"""The dialect that `edgekit build` takes on this machine."""

# Settings that change how a run is executed, but not its result.
_NOT_DECISIVE = ("out", "workers", "save_every", "guard")


@dataclass(frozen=True)
class FinetuneConfig:
    """One fine-tuning run. The defaults take minutes for the built-in model on two cores."""

    checkpoint: str | None = None  # None: the built-in model
    backbone: str | None = None  # timm:NAME of a plain checkpoint, or module:function
    labels: str | None = None  # class names for a checkpoint that has none
    data: str = "builtin:fashion-mnist"
    out: Path = Path("runs/finetune")
    recipe: str = "nearest"  # of the calibration that it starts from
    # Which runtime's form of the graph is fine-tuned: only there are the results exact.
    dialect: str = AUTO
    skip_bad: bool = False  # leave unreadable images out instead of stopping
    guard: bool = True  # refuse a result whose answers differ from the float model's

    # Corruptions of the paired images: as-trained (those of the checkpoint's training, so that
    # unseen ones stay unseen), or names and groups; none fine-tunes on clean images alone.
    seen: str = "as-trained"
    # Corruptions that choose the best epoch: "seen", or names and groups.
    validate_on: str = "seen"
    train_images: int | None = 3000  # at most this many, every class in proportion; None is all
    validation_images: int = 200  # likewise

    epochs: int = 2
    batch_size: int = 32  # images, not counting the corrupted twin of each
    lr: float = 0.003  # of weights and biases, with Adam, in 8-bit levels of their channel
    scale_lr: float = 3e-5  # of the logarithms of the quantizers' scales
    warmup: float = 0.05  # share of the steps in which the learning rate rises
    clip_norm: float = 0.0  # largest gradient norm; 0 does not clip
    patience: int = 0  # stop after this many epochs without improvement; 0 never stops early

    task_weight: float = 0.1  # of the cross-entropy with the labels
    distill_weight: float = 1.0  # of KL(float model || quantized model) over classes
    code_weight: float = 1.0  # of the same over codewords; 0 turns code consistency off
    feature_weight: float = 1.0  # of the squared error of the looked-up feature
    # The soft assignment to codewords divides cosines (or squared distances over the feature's
    # squared length) by this. It is about the noise that quantization adds to them.
    code_temperature: float = 0.02

    seed: int = 0  # of the order
    data_seed: int = 0  # of the split, the calibration images and the drawn corruptions
    workers: int | None = None  # loading processes; None is one per CPU
    threads: int | None = None  # of the arithmetic; None leaves it to torch
    device: str = "auto"
    save_every: float = 30.0  # seconds between saved states, from which a killed run resumes

    def __post_init__(self) -> None:
        """Refuse values with which nothing can be fine-tuned."""
        for name in ("epochs", "batch_size", "validation_images"):
            at_least(1, name, getattr(self, name))
        for name in ("lr", "scale_lr"):
            at_least(0, name, getattr(self, name))
        if not self.lr + self.scale_lr > 0:
            raise UsageError("lr and scale_lr are both 0: nothing would learn")
        for name in ("patience", "clip_norm", "save_every"):
            at_least(0, name, getattr(self, name))
        weights = ("task_weight", "distill_weight", "code_weight", "feature_weight")
        for name in weights:
            at_least(0, name, getattr(self, name))
        if not any(getattr(self, name) > 0 for name in weights):
            raise UsageError(f"{', '.join(weights)} are all 0: there is no loss")
        if not self.code_temperature > 0:
            raise UsageError(f"code_temperature must be positive, not {self.code_temperature}")
        if not 0 <= self.warmup < 1:
            raise UsageError(f"warmup must be 0 or more and below 1, not {self.warmup}")
        for name in ("threads", "train_images"):
            if getattr(self, name) is not None:
                at_least(1, name, getattr(self, name))
        if self.workers is not None:
            at_least(0, "workers", self.workers)

    def decisive(self) -> dict[str, object]:
        """The settings that the result depends on."""
        return {name: value for name, value in vars(self).items() if name not in _NOT_DECISIVE}
