"""``edgekit finetune``: trains a calibrated INT8 graph to answer like its float original."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import safetensors.torch
import torch

from edgekit.core.console import Console
from edgekit.core.errors import UsageError
from edgekit.core.files import file_sha256, write_bytes, write_text
from edgekit.core.folders import check_writable
from edgekit.core.step_cache import cache_root
from edgekit.core.typed_toml import read_toml
from edgekit.data.base import IndexArray
from edgekit.data.corruptions import parse_seen
from edgekit.data.loading import Skipped, default_workers
from edgekit.data.pool import Pool
from edgekit.data.splits import stratified_sample
from edgekit.graph.legalize import legalize
from edgekit.quantize.qat.config import AUTO, FinetuneConfig
from edgekit.quantize.qat.equivalence import prove
from edgekit.quantize.qat.evaluation import Validator
from edgekit.quantize.qat.loop import FinetuneJob, FinetuneLoop
from edgekit.quantize.qat.network import Network
from edgekit.quantize.qat.record import FinetuneRecord, write_record
from edgekit.quantize.qat.results import FinetuneResult, Validation
from edgekit.quantize.qat.run_log import INT8
from edgekit.quantize.recipes import read_recipe
from edgekit.steps.artifacts import Exported
from edgekit.steps.build_data import BuildData, check_inputs, split_images
from edgekit.steps.calibration import Calibration, calibrate, choose_calibration_images
from edgekit.steps.context import Context
from edgekit.steps.float_model import export, name_classes, obtain_checkpoint
from edgekit.steps.guard import HeldOut, check_graph, enforce, hold_out, worst_layers
from edgekit.steps.options import DataOptions, SourceOptions
from edgekit.targets.descriptor import load_descriptor
from edgekit.targets.dialects import find_dialect
from edgekit.training.batches import ImageSource, Order
from edgekit.training.config import BatchOptions
from edgekit.training.determinism import choose_device, reproducible
from edgekit.training.distributed import World, join_world
from edgekit.training.provenance import digest_of, training_provenance
from edgekit.training.run_folder import (
    BEST,
    CONFIG,
    LOG,
    refuse_other_command,
    refuse_other_run,
    take_folder,
)
from edgekit.training.run_state import Progress, RunState, resumable
from edgekit.training.stop_signal import StopSignal
from edgekit.training.views import LoadedViews, Unreadable, View, ViewLoader

CALIBRATED = "calibrated.onnx"
LISTING = "images.json"  # of the calibration images
_OWN_FILES = (INT8, CALIBRATED, LISTING, "result.json")
_PROOF_VIEWS = 64


@dataclass(frozen=True)
class _Start:
    """The calibrated graph that training starts from, its float original, and both networks."""

    config: FinetuneConfig
    device: torch.device
    exported: Exported
    data: BuildData
    train: IndexArray  # the images that are used; likewise for validation
    validation: IndexArray
    seen: tuple[str, ...]  # the corruptions of the paired images
    validated_on: tuple[str, ...]
    calibrated: onnx.ModelProto  # in the dialect's form
    listing: bytes  # of the calibration images
    original: onnx.ModelProto
    network: Network
    float_network: Network
    recipe: str
    images: str
    held_out: HeldOut  # for the guard


def finetune(config: FinetuneConfig, console: Console, *, restart: bool = False) -> FinetuneResult:
    """Fine-tune as ``config`` says, or resume an earlier call with the same settings.

    ``restart`` discards the earlier call. Under torchrun every process calls this.
    """
    started = time.monotonic()
    with (
        StopSignal() as stop,
        join_world(config.device) as world,
        reproducible(config.seed, config.threads),
    ):
        console = console if world.leads else Console(verbosity=-1)
        with world.leader_first():  # the others find its folder, and what it cached
            start = _prepared(config, world, console, restart=restart and world.leads)
        with _job(start, world, console, stop) as job:
            state = _resumable(job)
            if state is not None and state.progress.finished:
                progress = state.progress
            else:
                progress = FinetuneLoop(job, state).go()
            return world.from_leader(
                _finish(job, start, progress, started) if world.leads else None
            )


def _prepared(config: FinetuneConfig, world: World, console: Console, *, restart: bool) -> _Start:
    """The networks and the run's folder.

    It is taken once the networks are there: a run that cannot start leaves no files, and deletes
    none.
    """
    refuse_other_command(config.out, "finetune")
    if not (world.leads or (config.out / CALIBRATED).exists()):
        raise UsageError(
            f"{config.out} is not the folder that the first process has made: all need the same "
            "--out, on several machines as on a shared file system"
        )
    config = _with_dialect(config, console, restart)
    check_inputs(config.data, config.labels, config.recipe)
    check_writable(config.out)
    if not restart:
        refuse_other_run(config)
    device = choose_device(config.device, world.local_rank)
    start = _starting_point(config, device, console, restart)
    Order(len(start.train), config.batch_size, config.seed, world)  # refuses more processes
    if world.leads:
        _take_folder(config, start, restart)
    return start


def _with_dialect(config: FinetuneConfig, console: Console, restart: bool) -> FinetuneConfig:
    """``config`` with the dialect that "auto" means here: a run's own, or this machine's."""
    if config.dialect != AUTO:
        find_dialect(config.dialect)
        return config
    earlier = config.out / CONFIG
    if earlier.exists() and not restart:
        return replace(config, dialect=read_toml(earlier, FinetuneConfig).dialect)
    dialect = load_descriptor("cpu").dialect
    console.info(f"dialect {dialect}: what 'edgekit build' takes on this machine")
    return replace(config, dialect=dialect)


def _take_folder(config: FinetuneConfig, start: _Start, restart: bool) -> None:
    """Make ``out`` this run's folder, which keeps the calibration."""
    take_folder(config, _OWN_FILES, restart=restart)
    calibrated = config.out / CALIBRATED
    if not calibrated.exists():
        write_bytes(config.out / LISTING, start.listing)
        write_bytes(calibrated, start.calibrated.SerializeToString(deterministic=True))


def _starting_point(
    config: FinetuneConfig, device: torch.device, console: Console, restart: bool
) -> _Start:
    """Export and calibrate, through the cache; a run that goes on has its calibration already."""
    context = Context(console, cache_root())
    source = SourceOptions(config.checkpoint, config.backbone, config.labels)
    checkpoint = obtain_checkpoint(context, source)
    images = split_images(DataOptions(config.data, config.data_seed, config.skip_bad))
    images.need("train", "validation", "calibration")
    exported = export(context, checkpoint, source, check=images.matched)
    data = images.matched(exported.card.classes)
    if data.note:
        console.warn(data.note)
    exported = name_classes(exported, data)
    if not data.labeled:
        raise UsageError(
            f"{config.data}: its labels do not match the model's classes: give --labels"
        )
    seen = _corruptions(config, exported.card.training.seen)
    validated_on = seen if config.validate_on == "seen" else parse_seen(config.validate_on)
    dialect = find_dialect(config.dialect)
    chosen = choose_calibration_images(console, data, read_recipe(config.recipe))
    quantized = calibrate(context, Calibration(exported, data, chosen, dialect))
    stored = config.out / CALIBRATED
    if stored.exists() and not restart:
        calibrated = onnx.load(stored)
    else:
        calibrated = legalize(onnx.load(quantized.onnx), dialect)
    original = onnx.load(exported.onnx)

    def sample(indices: IndexArray, limit: int | None) -> IndexArray:
        count = len(indices) if limit is None else limit
        return stratified_sample(data.dataset, count, seed=config.data_seed, indices=indices)

    return _Start(
        config,
        device,
        exported,
        data,
        sample(data.splits.train, config.train_images),
        sample(data.splits.validation, config.validation_images),
        seen,
        validated_on,
        calibrated,
        quantized.onnx.with_name(LISTING).read_bytes(),
        original,
        Network(calibrated, original).to(device),
        Network(original).to(device).requires_grad_(False),
        quantized.recipe,
        quantized.images,
        hold_out(context, exported, data),
    )


@contextmanager
def _job(start: _Start, world: World, console: Console, stop: StopSignal) -> Iterator[FinetuneJob]:
    """What the loop needs: images and their workers beside the networks."""
    config, dataset = start.config, start.data.dataset
    preprocessing = start.exported.card.preprocessing
    workers = default_workers() // world.local_size if config.workers is None else config.workers
    skipped = Skipped()
    options = BatchOptions(
        pairing="paired" if start.seen else "clean",
        batch_size=config.batch_size,
        seed=config.seed,
        data_seed=config.data_seed,
    )
    pool: Pool[View, LoadedViews | Unreadable]
    with Pool(dataset, ViewLoader(preprocessing), workers) as pool:
        yield FinetuneJob(
            config=config,
            identity=_identity(start, world),
            provenance=_provenance(),
            network=start.network,
            original=start.float_network,
            train=start.train,
            source=ImageSource(
                dataset, start.train, pool, preprocessing, options, start.seen, world, skipped
            ),
            validate=Validator(
                start.validation,
                start.validated_on,
                preprocessing,
                pool,
                start.float_network,
                world,
                start.device,
                stop,
            ),
            world=world,
            device=start.device,
            console=console,
            stop=stop,
            skipped=skipped,
        )


def _identity(start: _Start, world: World) -> str:
    """A hash of settings, data and starting weights; refuses processes that have others."""
    config = start.config
    identity = digest_of(
        {
            **{name: repr(value) for name, value in config.decisive().items()},
            "data": start.data.splits.fingerprint(),
            "original": file_sha256(start.exported.onnx),
            "calibrated": file_sha256(config.out / CALIBRATED),
        }
    )
    if set(world.together([identity])) != {identity}:
        raise UsageError(
            "the processes have different images or checkpoints: all machines need the same files "
            "under the same paths, and the same cache (EDGEKIT_CACHE)"
        )
    return identity


def _provenance() -> str:
    """A hash of all code and libraries that decide what is learned."""
    package = Path(__file__).parents[1]
    files = [Path(__file__), *package.glob("quantize/qat/*.py")]
    ours = {path.relative_to(package).as_posix(): file_sha256(path) for path in files}
    return digest_of({**training_provenance(torch.get_num_threads()), **ours})


def _corruptions(config: FinetuneConfig, trained: tuple[str, ...] | None) -> tuple[str, ...]:
    """The corruptions of the paired images."""
    if config.seen != "as-trained":
        return parse_seen(config.seen)
    if trained is None:
        raise UsageError(
            "the checkpoint does not record its corruptions: name them with --seen, or none"
        )
    return trained


def _resumable(job: FinetuneJob) -> RunState | None:
    """The state that an earlier call left in the folder."""
    state = resumable(job.out, job.identity, job.provenance, job.console, "start over")
    if state is None or state.progress.finished:
        return state
    job.console.info(
        f"resuming in epoch {state.progress.epoch + 1}, after {state.progress.batch} batches"
    )
    return state


def _finish(job: FinetuneJob, start: _Start, progress: Progress, started: float) -> FinetuneResult:
    """Write the best network as an INT8 graph, after proving that the two are equal."""
    config = job.config
    network = Network(start.calibrated, start.original)
    network.load_state_dict(safetensors.torch.load_file(job.out / BEST))
    best = Validation(**progress.best_validation)
    record = _record(job, start, progress, best)
    graph = network.to_onnx()
    write_record(graph, record)
    onnx.checker.check_model(graph)
    pixels = job.validate.first_pixels()[:_PROOF_VIEWS]
    proof = prove(graph, network, pixels)
    job.console.info(proof.describe())
    dialect = find_dialect(config.dialect)
    closeness = check_graph(graph, start.held_out, dialect)

    # Its layers can be named only if the dialect left NNCF's form unchanged.
    def worst() -> list[str]:
        if dialect.rewrites:
            return []
        return worst_layers(graph, start.original, start.held_out, job.console)

    enforce(closeness, job.console, worst, insist=config.guard)
    write_bytes(job.out / INT8, graph.SerializeToString(deterministic=True))
    if progress.skipped_images:
        job.console.warn(f"{progress.skipped_images} images could not be read and were left out")
    result = FinetuneResult(
        out=job.out,
        onnx=job.out / INT8,
        parameters=job.out / BEST,
        best_epoch=progress.best_epoch + 1,
        epochs=config.epochs,
        stopped_early=progress.stopped_early,
        calibrated=_calibrated(job.out),
        finetuned=best,
        proof=proof,
        guard=closeness,
        record=record,
        skipped_images=progress.skipped_images,
        seconds=round(time.monotonic() - started, 2),
    )
    write_text(job.out / "result.json", json.dumps(result.to_dict(), indent=1, sort_keys=True))
    return result


def _record(
    job: FinetuneJob, start: _Start, progress: Progress, best: Validation
) -> FinetuneRecord:
    config = job.config
    return FinetuneRecord(
        checkpoint=start.exported.checkpoint.sha256,
        dialect=config.dialect,
        recipe=start.recipe,
        recipe_name=Path(config.recipe).name,
        images=start.images,
        data=config.data,
        seen=start.seen,
        train_images=len(job.train),
        epochs=config.epochs,
        best_epoch=progress.best_epoch + 1,
        task_weight=config.task_weight,
        distill_weight=config.distill_weight,
        code_weight=config.code_weight,
        feature_weight=config.feature_weight,
        seed=config.seed,
        code_agreement=(
            best.code_agreement_clean
            if best.code_agreement_corrupted is None
            else best.code_agreement_corrupted
        ),
        mean_corruption_error=best.mean_corruption_error,
    )


def _calibrated(out: Path) -> Validation:
    """The calibrated graph's evaluation, from the first line of the log."""
    first = (out / LOG).read_text(encoding="utf-8").splitlines()[0]
    return Validation(**json.loads(first)["calibrated"])
