"""`edgekit train`: its options, which are the keys of its TOML file."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any, get_args

import click

from edgekit.cli.common import Command, common
from edgekit.core.console import Console
from edgekit.core.errors import UsageError
from edgekit.core.packages import TRAIN
from edgekit.core.tables import FACTS
from edgekit.core.typed_toml import read_toml
from edgekit.model.config import CodebookUpdate, Distance, OutputForm, Quantize
from edgekit.parity.tolerance import TOLERANCE
from edgekit.training.config import (
    AttentionStart,
    Augment,
    Optimizer,
    Pairing,
    Precision,
    TrainConfig,
)

_FILE = click.Path(path_type=Path)


def _choice(kind: Any) -> click.Choice[str]:
    return click.Choice(list(get_args(kind)))


@click.command(
    cls=Command,
    prints=("train",),
    short_help="Train VQ-SA on clean and corrupted images.",
    needs=TRAIN,
    examples="""
    edgekit train --data builtin:fashion-mnist
    edgekit train --data ./photos --out runs/photos
    edgekit train --data ./photos --config photos.toml --seed 1 --out runs/b
    edgekit train --data ./photos --finetune-epochs 5
    torchrun --nproc-per-node 2 -m edgekit train --data ./photos --out runs/two
    """,
)
@click.option("--config", "file", type=_FILE, help="TOML file with any of these options.")
@click.option("--data", help="Folder, .npz, .csv, .jsonl, URL or builtin:fashion-mnist.")
@click.option("--out", type=_FILE, help="Folder for checkpoints and log; one with a run resumes.")
@click.option("--restart", is_flag=True, help="Discard the run in --out and start over.")
@click.option("--cache", type=_FILE, help="Folder for cached features; default: in --out.")
@click.option(
    "--backbone", help="efficientnet-lite0, resnet18/34/50/101, timm:NAME or module:function."
)
@click.option("--weights", help="auto (packaged ImageNet weights), none, or a checkpoint.")
@click.option("--image-size", type=int, help="Side in pixels; default: that of the weights.")
@click.option("--crop-ratio", type=float, help="Share of the image the center crop keeps.")
@click.option("--freeze/--no-freeze", default=None, help="Train the head only, or everything.")
@click.option(
    "--finetune-epochs", type=int, help="Afterwards, epochs that train the backbone, too."
)
@click.option("--finetune-lr", type=float, help="Learning rate of those epochs.")
@click.option("--head", type=_choice(OutputForm), help="The head's form; none: no codebook.")
@click.option("--codebook-size", type=int, help="Number of codewords.")
@click.option("--quantize", type=_choice(Quantize), help="What is looked up.")
@click.option("--distance", type=_choice(Distance), help="Distance measure of the lookup.")
@click.option("--commitment", type=float, help="Weight of the commitment loss.")
@click.option("--codebook-update", type=_choice(CodebookUpdate), help="How codewords learn.")
@click.option("--logit-scale/--no-logit-scale", default=None, help="Divide attention by sqrt(2).")
@click.option(
    "--attention-start",
    type=_choice(AttentionStart),
    help="Start of the attention: K = Q, or random.",
)
@click.option("--kmeans/--no-kmeans", default=None, help="Start the codewords from k-means.")
@click.option("--quantizer-start", type=int, help="Epochs before the codebook starts.")
@click.option("--reset-dead-codes/--keep-dead-codes", default=None, help="Move unused codewords.")
@click.option("--seen", help="Corruptions in training: benchmark15, extra4, none or a list.")
@click.option("--pairing", type=_choice(Pairing), help="How clean and corrupted images mix.")
@click.option("--validate-on", help="Corruptions that choose the best epoch; default: --seen.")
@click.option("--train-images", type=int, help="Most images to train on.")
@click.option("--validation-images", type=int, help="Most images to validate on.")
@click.option("--variants", type=int, help="Cached corrupted variants of each image.")
@click.option(
    "--augment", type=_choice(Augment), help="Random crops and flips; not with cached features."
)
@click.option("--epochs", type=int, help="Passes over the training images.")
@click.option("--batch-size", type=int, help="Images per step, over all processes.")
@click.option("--optimizer", type=_choice(Optimizer), help="The optimizer.")
@click.option("--lr", type=float, help="Highest learning rate.")
@click.option("--momentum", type=float, help="Momentum of SGD.")
@click.option(
    "--weight-decay", type=float, help="Decay of weights, not of codewords, biases and norms."
)
@click.option("--warmup", type=float, help="Share of the steps in which the learning rate rises.")
@click.option("--label-smoothing", type=float, help="Share of probability spread over classes.")
@click.option("--clip-norm", type=float, help="Largest gradient norm; 0 turns clipping off.")
@click.option("--ema", type=float, help="Decay of the averaged weights; 0 keeps the raw ones.")
@click.option("--patience", type=int, help="Stop after this many epochs without improvement.")
@click.option("--preserve", type=float, help="Weight of feature preservation; 0: not used.")
@click.option("--denoise", type=float, help="Weight of DenoiseRep's denoising; 0: not used.")
@click.option("--prune", type=float, help="Share of channels to prune; 0: none.")
@click.option("--remove-paths", type=int, help="Branches to remove from a transformer; 0: none.")
@click.option("--precision", type=_choice(Precision), help="Mixed precision.")
@click.option("--seed", type=int, help="Seed of weights and image order.")
@click.option("--data-seed", type=int, help="Seed of the split and of the drawn corruptions.")
@click.option("--workers", type=int, help="Processes that load images.")
@click.option("--threads", type=int, help="Threads for computing.")
@click.option("--device", help="auto, cpu or cuda.")
@click.option("--save-every", type=float, help="Seconds between saved states.")
@common
def train(console: Console, file: Path | None, restart: bool, **options: Any) -> None:
    """Train VQ-SA on clean and corrupted images; a killed run resumes where it stopped.

    It starts only with --data or --config. Options override --config, which overrides the
    defaults. The checkpoint records the corruptions used in training, and every report
    repeats them.
    """
    config = read_toml(file, TrainConfig) if file else TrainConfig()
    given = {name: value for name, value in options.items() if value is not None}
    config = dataclasses.replace(config, **given)
    if file is None and "data" not in given:
        raise UsageError(
            "--data is missing: name the images to train on, a folder with one folder per class "
            f"(or {config.data}, edgekit's own); the other settings have defaults: "
            f"{config.backbone} with its ImageNet weights, {config.codebook_size} codewords, "
            f"{config.epochs} epochs, results in {config.out}"
        )

    from edgekit.training.run import run_training
    from edgekit.training.summary import result_rows

    result = run_training(config, console, restart=restart, tolerance=TOLERANCE)
    if os.environ.get("RANK", "0") != "0":  # torchrun's first process reports for all
        return
    console.document(result)
    console.table(FACTS, result_rows(result.to_dict()), str(result.out))
