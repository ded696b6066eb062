"""``edgekit finetune``: its options, which are the keys of its TOML file."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import click

from edgekit.cli.common import Command, common
from edgekit.core.console import Console
from edgekit.core.packages import BUILD
from edgekit.core.tables import Column, Table
from edgekit.core.typed_toml import read_toml
from edgekit.targets.dialects import DIALECTS

_FILE = click.Path(path_type=Path)

VALIDATION = Table.of(
    "validation images",
    *(Column(model, "figure") for model in ("float", "calibrated", "fine-tuned")),
)


@click.command(
    cls=Command,
    prints=("finetune",),
    short_help="Fine-tune an INT8 model to answer like its float original.",
    needs=BUILD,
    examples="""
    edgekit finetune best.pth --data ./photos --out runs/q
    edgekit finetune --data builtin:fashion-mnist --out runs/q
    edgekit finetune best.pth --data ./photos --dialect tensorrt --out runs/jetson
    torchrun --nproc-per-node 2 -m edgekit finetune best.pth --data ./photos --out runs/q2
    edgekit build --checkpoint best.pth --quantized runs/q/model-int8.onnx
    """,
)
@click.argument("checkpoint", required=False)
@click.option("--config", "file", type=_FILE, help="TOML file with any of these options.")
@click.option("--data", help="Folder, .npz, .csv, .jsonl, URL or builtin:fashion-mnist.")
@click.option("--out", type=_FILE, help="Folder for results and log; one with a run resumes.")
@click.option("--restart", is_flag=True, help="Discard the run in --out and start over.")
@click.option("--recipe", help="Calibration to start from: a name, or a .toml file.")
@click.option(
    "--dialect",
    type=click.Choice(["auto", *DIALECTS]),
    help="The runtime's dialect; auto: as 'build' takes here.  [auto]",
)
@click.option("--backbone", help="Whose weights they are, if timm:NAME or module:function.")
@click.option("--labels", help="Text file, one class name per line.")
@click.option("--skip-bad/--no-skip-bad", default=None, help="Leave unreadable images out.")
@click.option(
    "--guard/--no-guard", default=None, help="Refuse a graph whose answers differ from float's."
)
@click.option("--seen", help="Corruptions of the paired images; default: the checkpoint's.")
@click.option("--validate-on", help="Corruptions that choose the best epoch; default: --seen.")
@click.option("--train-images", type=int, help="Most images to train on.")
@click.option("--validation-images", type=int, help="Most images to validate on.")
@click.option("--epochs", type=int, help="Passes over the training images.")
@click.option("--batch-size", type=int, help="Images per step, each clean and corrupted.")
@click.option("--lr", type=float, help="Highest learning rate of weights and biases.")
@click.option("--scale-lr", type=float, help="Highest learning rate of the scales' logarithms.")
@click.option("--warmup", type=float, help="Share of the steps in which the learning rates rise.")
@click.option("--clip-norm", type=float, help="Largest gradient norm; 0 turns clipping off.")
@click.option("--patience", type=int, help="Stop after this many epochs without improvement.")
@click.option("--task-weight", type=float, help="Weight of the cross-entropy with the labels.")
@click.option("--distill-weight", type=float, help="Weight of agreement with the float classes.")
@click.option("--code-weight", type=float, help="Weight of code consistency; 0 turns it off.")
@click.option("--feature-weight", type=float, help="Weight of the feature's squared error.")
@click.option(
    "--code-temperature", type=float, help="Temperature of the soft assignment to codewords."
)
@click.option("--seed", type=int, help="Seed of the image order.")
@click.option("--data-seed", type=int, help="Seed of the split and of the drawn corruptions.")
@click.option("--workers", type=int, help="Processes that load images.")
@click.option("--threads", type=int, help="Threads for computing.")
@click.option("--device", help="auto, cpu or cuda.")
@click.option("--save-every", type=float, help="Seconds between saved states.")
@common
def finetune(console: Console, file: Path | None, restart: bool, **options: Any) -> None:
    """Fine-tune the INT8 form of CHECKPOINT to match the float model's answers and codes.

    Without CHECKPOINT: the built-in model. A killed run resumes where it stopped.
    """
    from edgekit.quantize.qat.config import FinetuneConfig

    config = read_toml(file, FinetuneConfig) if file else FinetuneConfig()
    given = {name: value for name, value in options.items() if value is not None}
    config = dataclasses.replace(config, **given)

    from edgekit.quantize.qat.results import result_rows
    from edgekit.workflows.finetune import finetune as run

    result = run(config, console, restart=restart)
    if os.environ.get("RANK", "0") != "0":  # torchrun's first process reports for all
        return
    console.document(result)
    console.table(VALIDATION, result_rows(result), str(result.out))
    console.text(f"wrote {result.onnx}")
