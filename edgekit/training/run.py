"""`edgekit train`: data and settings in, a checkpoint out, resumable at any moment."""

from __future__ import annotations

import time

import torch

from edgekit.core.console import Console
from edgekit.core.errors import UsageError
from edgekit.data.base import IndexArray
from edgekit.data.corruptions import parse_seen
from edgekit.data.datasets import open_dataset
from edgekit.data.loading import Skipped, default_workers
from edgekit.data.splits import split_dataset, stratified_sample
from edgekit.metrics.planning import outlook
from edgekit.model.card import ModelCard, TrainingProtocol
from edgekit.training.config import METHODS, TrainConfig
from edgekit.training.determinism import choose_device, precision_for, reproducible
from edgekit.training.distributed import World, join_world, share_batch_norm
from edgekit.training.initial_weights import Start, starting_point
from edgekit.training.loop import TrainingJob, train
from edgekit.training.methods.base import create_methods
from edgekit.training.phases import Material, make_phases
from edgekit.training.provenance import digest_of, training_provenance, weights_hash
from edgekit.training.results import Evaluation, TrainResult
from edgekit.training.run_folder import (
    BEST,
    refuse_other_command,
    refuse_other_run,
    take_folder,
)
from edgekit.training.run_state import Progress, RunState, resumable
from edgekit.training.stop_signal import StopSignal

_LAST = "last.safetensors"


def run_training(
    config: TrainConfig,
    console: Console,
    *,
    restart: bool = False,
    tolerance: float | None = None,
) -> TrainResult:
    """Train as ``config`` says, or resume where an earlier call with the same settings stopped.

    ``restart`` discards the earlier call's state. ``tolerance``: first say what the test images
    can decide of it, once the model is built. Under torchrun every process calls this.
    """
    started = time.monotonic()
    with (
        StopSignal() as stop,
        join_world(config.device) as world,
        reproducible(config.seed, config.threads),
    ):
        refuse_other_command(config.out, "train")
        console = console if world.leads else Console(verbosity=-1)
        device = choose_device(config.device, world.local_rank)
        precision_for(config.precision, device)  # refuses a precision that the device lacks
        if not restart:
            refuse_other_run(config)
        start = starting_point(config, console)
        material = _material(config, start, device, world, console, stop)
        if tolerance is not None:
            console.info(outlook(len(material.splits.test), tolerance))
        job = _job(config, start, material)
        if world.leads:  # last: a run that cannot start leaves no files
            take_folder(config, [_LAST], restart=restart)
        world.wait()
        state = _resumable(job)
        if state is not None and state.progress.finished:
            progress = state.progress
        else:
            progress = train(job, state)
        return _result(job, material, progress, time.monotonic() - started)


def _material(
    config: TrainConfig,
    start: Start,
    device: torch.device,
    world: World,
    console: Console,
    stop: StopSignal,
) -> Material:
    """The images, their split, and what the phases need to work on them."""
    dataset = open_dataset(config.data)
    if len(dataset.classes) < 2:
        raise UsageError(
            f"{config.data} has one class, '{dataset.classes[0]}': a classifier needs two, such as "
            "a folder with one folder per class"
        )
    splits = split_dataset(dataset, seed=config.data_seed)
    for part in ("train", "validation"):
        splits.part(part, dataset)  # refuses an empty part
    train_count = config.train_images or len(splits.train)

    def sample(indices: IndexArray, count: int) -> IndexArray:
        return stratified_sample(dataset, count, seed=config.data_seed, indices=indices)

    corruptions = parse_seen(config.seen)
    workers = default_workers() // world.local_size if config.workers is None else config.workers
    return Material(
        config=config,
        dataset=dataset,
        splits=splits,
        train=sample(splits.train, train_count),
        validation=sample(splits.validation, config.validation_images),
        preprocessing=start.preprocessing,
        corruptions=corruptions,
        validation_corruptions=(
            corruptions if config.validate_on == "seen" else parse_seen(config.validate_on)
        ),
        workers=workers,
        device=device,
        world=world,
        console=console,
        stop=stop,
        skipped=Skipped(),
    )


def _job(config: TrainConfig, start: Start, material: Material) -> TrainingJob:
    """Model, card and phases."""
    classes = material.dataset.classes
    model, continues = start.model_for(classes, config)
    identity = digest_of(
        {
            # A method of weight 0 is left out: runs from before the method existed go on.
            **{
                name: repr(value)
                for name, value in config.decisive().items()
                if value or name not in METHODS
            },
            "data": material.splits.fingerprint(),
            "start": weights_hash(model),
        }
    )
    card = ModelCard(
        backbone=config.backbone,
        width=model.head.width,
        classes=classes,
        preprocessing=start.preprocessing,
        vqsa=config.vqsa(),
        training=TrainingProtocol(
            seen=material.corruptions,
            data=material.dataset.name,
            note=_note(config, start, material),
        ),
    )
    model.to(material.device)
    freezes = _freezes(config, start)
    methods = create_methods(
        config,
        model,
        start.preprocessing.size,
        is_trained=start.is_trained,
        has_head=continues,
        freezes=freezes,
    )
    phases = make_phases(material, model, freezes)
    if material.world.size > 1 and any(phase.learns_batch_norm for phase in phases):
        share_batch_norm(model.backbone)
    return TrainingJob(
        config=config,
        identity=identity,
        provenance=digest_of(
            {
                **training_provenance(torch.get_num_threads()),
                "backbone code": model.backbone.source,
            }
        ),
        model=model,
        methods=methods,
        card=card,
        phases=phases,
        starts_quantized=continues,
        world=material.world,
        device=material.device,
        console=material.console,
        stop=material.stop,
        skipped=material.skipped,
    )


def _freezes(config: TrainConfig, start: Start) -> bool:
    freezes = start.is_trained if config.freeze is None else config.freeze
    if freezes and not start.is_trained:
        raise UsageError(
            f"freezing a {config.backbone} with random weights would leave nothing to learn from: "
            "give --weights, or --no-freeze"
        )
    if freezes and config.augment != "none" and not config.finetune_epochs:
        raise UsageError(
            "augment needs a backbone that learns, but features are cached: add --no-freeze"
        )
    if not freezes and config.finetune_epochs:
        raise UsageError("finetune_epochs are for a frozen backbone: raise epochs instead")
    return freezes


def _note(config: TrainConfig, start: Start, material: Material) -> str:
    """What a reader of the checkpoint should know about the training."""
    validated_on = ", ".join(material.validation_corruptions) or "clean images"
    return (
        f"pairing {config.pairing}, seed {config.seed}, backbone from {start.origin}, "
        f"best epoch chosen on {validated_on} (validation split), "
        f"torch {torch.__version__} with {torch.get_num_threads()} threads"
    )


def _resumable(job: TrainingJob) -> RunState | None:
    """The state that an earlier call left in the folder."""
    state = resumable(job.out, job.identity, job.provenance, job.console, "start over")
    if state is None or state.progress.finished:
        return state
    epoch = sum(p.epochs for p in job.phases[: state.progress.phase]) + state.progress.epoch
    job.console.info(f"resuming in epoch {epoch + 1}, after {state.progress.batch} batches")
    return state


def _result(
    job: TrainingJob, material: Material, progress: Progress, seconds: float
) -> TrainResult:
    if progress.skipped_images:
        job.console.warn(f"{progress.skipped_images} images could not be read and were left out")
    return TrainResult(
        out=job.out,
        best=job.out / BEST,
        last=job.out / _LAST,
        best_epoch=progress.best_epoch + 1,
        epochs=sum(phase.epochs for phase in job.phases),
        stopped_early=progress.stopped_early,
        seen=material.corruptions,
        validated_on=material.validation_corruptions,
        validation=Evaluation(**progress.best_validation),
        skipped_images=progress.skipped_images,
        seconds=round(seconds, 2),
    )
