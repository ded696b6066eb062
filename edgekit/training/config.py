"""The settings of `edgekit train`: the command's options, which are its TOML file's keys."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgekit.core.errors import UsageError
from edgekit.core.typed_toml import at_least
from edgekit.model.config import CodebookUpdate, Distance, OutputForm, Quantize, VQSAConfig

Pairing = Literal["paired", "sampled", "clean"]
Optimizer = Literal["sgd", "adamw"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Augment = Literal["none", "flip", "crop"]
AttentionStart = Literal["self", "random"]

# Settings that turn on a training method, 0 being none; its term of the loss has the same name.
METHODS = ("preserve", "denoise", "prune", "remove_paths")

_MOST_PRUNED = 0.9  # of the channels

# Settings that change how a run is executed, but not its result.
_NOT_DECISIVE = ("out", "cache", "workers", "save_every")


@dataclass(frozen=True)
class BatchOptions:
    """How images become batches, and in which views."""

    pairing: Pairing
    batch_size: int
    seed: int  # of the order
    data_seed: int  # of the drawn corruptions


@dataclass(frozen=True)
class TrainConfig:
    """One training run. The defaults suit a frozen backbone and a few thousand images."""

    data: str = "builtin:fashion-mnist"
    out: Path = Path("runs/train")
    # Where cached features go; None is a folder in ``out``. Runs may share one.
    cache: Path | None = None

    backbone: str = "efficientnet-lite0"
    # "auto": the ImageNet weights that come with the backbone, if any; "none": random ones; else a
    # checkpoint in any layout that edgekit reads.
    weights: str = "auto"
    image_size: int | None = None  # pixels; None is what the weights were trained with
    crop_ratio: float | None = None  # of the center crop; None likewise, but 1 with an image_size
    # A frozen backbone runs once per image, and its features are cached; None freezes a backbone
    # that starts from trained weights.
    freeze: bool | None = None
    finetune_epochs: int = 0  # of a second phase, in which the frozen backbone learns as well
    finetune_lr: float = 0.002  # in that phase, of the backbone and of the head

    head: OutputForm = "attention"
    codebook_size: int = 256
    quantize: Quantize = "pooled"
    distance: Distance = "cosine"
    commitment: float = 0.25
    codebook_update: CodebookUpdate = "gradient"
    logit_scale: bool = False
    # self: K and Q start equal, so each token attends to itself and the feature passes through;
    # random: as in the released code, whose attention starts by mixing the tokens at random.
    attention_start: AttentionStart = "self"
    kmeans: bool = True  # start the codebook from the features instead of at random
    # Epochs before the codebook starts, in which the feature stands in for its codeword.
    quantizer_start: int = 0
    reset_dead_codes: bool = True

    seen: str = "benchmark15"  # corruptions in training; see corruptions.parse_seen
    # paired: every image clean and corrupted in one batch (the paper); sampled: every image once,
    # with a random type and severity, clean being one more type (the released code); clean: never
    # corrupted.
    pairing: Pairing = "paired"
    # Corruptions that early stopping looks at: "seen", or names as in ``seen``.
    validate_on: str = "seen"
    train_images: int | None = None  # at most this many, every class in proportion; None is all
    validation_images: int = 500  # likewise
    variants: int = 2  # corrupted variants cached of each image, for a frozen backbone
    augment: Augment = "none"  # only without cached features

    epochs: int = 5
    batch_size: int = 128  # images, over all processes; a paired image counts once
    optimizer: Optimizer = "sgd"
    lr: float = 0.05
    momentum: float = 0.9  # of SGD
    weight_decay: float = 1e-4
    warmup: float = 0.05  # share of the steps in which the learning rate rises
    label_smoothing: float = 0.0
    clip_norm: float = 5.0  # largest gradient norm; 0 does not clip
    ema: float = 0.99  # decay per step of the averaged weights, which are saved; 0: the raw ones
    patience: int = 0  # stop after this many epochs without improvement; 0 never stops early
    # Methods that act while the backbone learns and cost nothing afterwards; 0 is without.
    preserve: float = 0.0  # the weight of feature preservation, which needs pairs
    denoise: float = 0.0  # the weight of DenoiseRep
    prune: float = 0.0  # the share of channels that go
    remove_paths: int = 0  # path ensemble: so many branches of a transformer are removed
    precision: Precision = "auto"  # auto: bf16 or fp16 on a GPU, fp32 on a CPU

    seed: int = 0  # of weights and order
    data_seed: int = 0  # of the split and of the images' corruptions
    workers: int | None = None  # loading processes; None is one per CPU
    threads: int | None = None  # of the arithmetic; None leaves it to torch
    device: str = "auto"
    save_every: float = 30.0  # seconds between saved states, from which a killed run resumes

    def __post_init__(self) -> None:
        """Refuse values with which no training can run."""
        for name in ("epochs", "batch_size", "validation_images", "variants"):
            at_least(1, name, getattr(self, name))
        for name in ("lr", "finetune_lr"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} must be positive, not {getattr(self, name)}")
        nonnegative = ("finetune_epochs", "quantizer_start", "patience", "clip_norm", "save_every")
        for name in (*nonnegative, "weight_decay", *METHODS):
            at_least(0, name, getattr(self, name))
        if self.prune > _MOST_PRUNED:
            raise UsageError(f"prune must be 0 to {_MOST_PRUNED}, not {self.prune}")
        for name in ("ema", "label_smoothing", "momentum", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name} must be 0 or more and below 1, not {getattr(self, name)}")
        for name in ("threads", "train_images"):
            if getattr(self, name) is not None:
                at_least(1, name, getattr(self, name))
        if self.workers is not None:
            at_least(0, "workers", self.workers)
        if self.image_size is not None and not 8 <= self.image_size <= 8192:
            raise UsageError(f"image_size must be 8 to 8192 pixels, not {self.image_size}")
        if self.pairing == "clean" and self.seen != "none":
            raise UsageError("pairing 'clean' applies no corruption: set seen to 'none' as well")
        if self.pairing != "clean" and self.seen == "none":
            raise UsageError(
                f"pairing '{self.pairing}' needs corruptions: set seen, or use 'clean'"
            )
        if self.preserve and self.pairing != "paired":
            raise UsageError(
                "preserve compares each corrupted image with its clean one, which pairing "
                f"'{self.pairing}' does not show: set pairing to 'paired', or preserve to 0"
            )
        if self.crop_ratio is not None and not 0.05 <= self.crop_ratio <= 1:
            raise UsageError(f"crop_ratio must be 0.05 to 1, not {self.crop_ratio}")
        self.vqsa()  # checks its own values

    def vqsa(self) -> VQSAConfig:
        """The head that these settings describe."""
        return VQSAConfig(
            codebook_size=self.codebook_size,
            quantize=self.quantize,
            distance=self.distance,
            output=self.head,
            logit_scale=self.logit_scale,
            commitment=self.commitment,
            update=self.codebook_update,
        )

    def batches(self) -> BatchOptions:
        """How batches are made."""
        return BatchOptions(self.pairing, self.batch_size, self.seed, self.data_seed)

    def decisive(self) -> dict[str, object]:
        """The settings that the result depends on."""
        return {name: value for name, value in vars(self).items() if name not in _NOT_DECISIVE}
