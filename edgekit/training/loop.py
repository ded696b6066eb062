"""The training loop: phases of epochs of batches, with everything a killed run resumes from."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError, Interrupted
from edgekit.core.progress import ProgressBar
from edgekit.data.loading import Skipped
from edgekit.model.card import ModelCard
from edgekit.model.checkpoint import save_checkpoint
from edgekit.model.codebook import perplexity
from edgekit.model.vqsa import VQSA
from edgekit.training.batches import Batch, Source
from edgekit.training.config import TrainConfig
from edgekit.training.determinism import precision_for, step_seed
from edgekit.training.distributed import World
from edgekit.training.journal import Journal
from edgekit.training.losses import SUMS, Learner, Losses
from edgekit.training.methods.base import deployable
from edgekit.training.methods.method import Evaluate, Method
from edgekit.training.optimizer import (
    AveragedWeights,
    create_optimizer,
    forget_rows,
    learning_rate,
    set_learning_rate,
    shares_of_the_rest,
)
from edgekit.training.run_folder import STATE
from edgekit.training.run_state import Progress, RunState, save_state
from edgekit.training.stop_signal import StopSignal
from edgekit.training.summary import curves, epoch_line


@dataclass(frozen=True)
class Phase:
    """A part of training with a single source of batches."""

    name: str
    epochs: int
    lr: float
    learns_backbone: bool
    learns_batch_norm: bool  # whether the backbone's running statistics move
    open: Callable[[], AbstractContextManager[Source]]
    evaluate: Evaluate  # several on the same images


@dataclass(frozen=True)
class TrainingJob:
    """Everything the loop needs; `edgekit.training.run` assembles it."""

    config: TrainConfig
    identity: str
    provenance: str
    model: VQSA
    methods: tuple[Method, ...]  # of the phases in which the backbone learns
    card: ModelCard
    phases: tuple[Phase, ...]
    starts_quantized: bool  # the codebook is already trained
    world: World
    device: torch.device
    console: Console
    stop: StopSignal
    skipped: Skipped

    @property
    def out(self) -> Path:
        """The run's folder."""
        return self.config.out


def train(job: TrainingJob, state: RunState | None) -> Progress:
    """Run all phases, from ``state`` if there is one; writes the best, last and state files."""
    progress = state.progress if state else Progress(quantizes=job.starts_quantized)
    journal = Journal(job.out, progress.log_bytes, job.world.leads)
    if state is None:
        phases = {phase.name: phase.epochs for phase in job.phases}
        journal.write("start", phases=phases, processes=job.world.size, seed=job.config.seed)
    try:
        while progress.phase < len(job.phases):
            _PhaseRun(job, job.phases[progress.phase], progress, journal, state).run()
            state = None
    finally:
        journal.close()
    return progress


class _PhaseRun:
    """A phase in progress."""

    def __init__(
        self,
        job: TrainingJob,
        phase: Phase,
        progress: Progress,
        journal: Journal,
        state: RunState | None,
    ) -> None:
        self.job, self.phase, self.progress, self.journal = job, phase, progress, journal
        self.model = job.model
        self.model.head.requires_grad_(True)
        self.model.backbone.requires_grad_(phase.learns_backbone)
        self.methods = job.methods if phase.learns_backbone else ()
        for method in self.methods:
            method.attach(self.model)
        if state is not None:
            self.model.load_state_dict(state.model, strict=False)
        self.optimizer = create_optimizer(self.model, job.config)
        self.average = AveragedWeights(self.model, job.config.ema)
        self.precision = precision_for(job.config.precision, job.device)
        self.scaler = torch.amp.GradScaler(job.device.type, enabled=self.precision == "fp16")
        self.terms = (*SUMS, *(method.name for method in self.methods))
        self.sums = torch.zeros(len(self.terms) + 1, dtype=torch.float64)
        if state is not None:
            self._restore(state)
        self.learner = Learner(self.model, job.config.label_smoothing, self.methods)
        self.saved_at = time.monotonic()
        self.last_features: Tensor | None = None
        self.shares: list[float] = []

    def run(self) -> None:
        """Train until the phase's last epoch, or until improvement stops."""
        progress = self.progress
        with self.phase.open() as source:
            if not progress.step:  # else what a method decides is in the state
                for method in self.methods:
                    method.start(self.model, self.phase.evaluate, self.job.console)
                if any(method.shrinks for method in self.methods):
                    progress.best = None
            wrapped = self._wrapped(source)
            total = source.batches_per_epoch() * self.phase.epochs
            self.shares = shares_of_the_rest(total, self.job.config.warmup)
            with ProgressBar(self.job.console, self.phase.name, total, progress.step) as bar:
                while progress.epoch < self.phase.epochs and not progress.stopped_early:
                    self._epoch(source, wrapped, total, bar)
        self._end_phase()

    def _wrapped(self, source: Source) -> nn.Module:
        if self.job.world.size == 1:
            return self.learner
        wrapped = DistributedDataParallel(
            self.learner,
            broadcast_buffers=False,  # batch norm and code counts are summed, not overwritten
            find_unused_parameters=self._epoch_number() < self.job.config.quantizer_start
            or (self.phase.learns_backbone and not self.model.backbone.uses_all_parameters),
        )
        if self.model.head.codebook is not None and not self.job.world.leads:
            self.model.head.codebook.reset_usage()  # wrapping copied the leader's counts into it
        return wrapped

    def _epoch(self, source: Source, wrapped: nn.Module, total: int, bar: ProgressBar) -> None:
        progress, epoch = self.progress, self._epoch_number()
        started = time.monotonic()
        codebook = self.model.head.codebook
        is_due = epoch >= self.job.config.quantizer_start
        if codebook is not None and not progress.quantizes and is_due:
            self._start_codebook(source)
        self.model.train()
        if not self.phase.learns_batch_norm:
            self.model.backbone.eval()
        rate, stop, due = 0.0, False, False
        for batch in source.batches(epoch, progress.batch):
            config = self.job.config
            rate = learning_rate(self.phase.lr, progress.step, total, config.warmup)
            set_learning_rate(self.optimizer, rate)
            stop, due = self._step(batch, wrapped, source.are_images)
            progress.batch += 1
            progress.step += 1
            bar.advance(1, self._figures())
            if progress.batch < source.batches_per_epoch():
                self._pause(stop, due)
        self._end_epoch(epoch, rate, time.monotonic() - started, bar)
        self._pause(stop, due)

    def _pause(self, stop: bool, due: bool) -> None:
        """Save if it is time to; save and stop if the user asked for it."""
        if stop or due:
            self._save()
        if stop:
            raise Interrupted(
                f"interrupted in epoch {self._epoch_number() + 1}: run the same command to resume"
            )

    def _step(self, batch: Batch, wrapped: nn.Module, are_images: bool) -> tuple[bool, bool]:
        """Train on one batch. Returns, alike in all processes, whether to stop and to save."""
        job, progress = self.job, self.progress
        # What layers draw (dropout, for example) follows from the step alone: no state to save.
        torch.manual_seed(step_seed(job.config.seed, progress.phase, progress.step, job.world.rank))
        inputs, labels = batch.inputs.to(job.device), batch.labels.to(job.device)
        with self._autocast():
            losses: Losses = wrapped(inputs, labels, are_images, progress.quantizes)
        images = len(labels)
        broken = not bool(torch.isfinite(losses.total))
        due = job.world.leads and time.monotonic() - self.saved_at > job.config.save_every
        own = torch.tensor([images, broken, job.stop.requested, due], dtype=torch.float64)
        totals = job.world.total(own.to(job.device)).cpu()
        if totals[1] > 0:
            raise self._broken(batch, losses)
        # A process's mean is weighted by its images: the sum is the mean over the global batch.
        share = images / float(totals[0])
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(losses.total * (share * job.world.size)).backward()
        if job.config.clip_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), job.config.clip_norm)
        for method in self.methods:
            method.advance(self.model, self.shares[progress.step])
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.average.update(self.model, progress.step)
        self.sums += losses.sums(images).cpu()
        self.last_features = losses.features
        return bool(totals[2] > 0), bool(totals[3] > 0)

    def _broken(self, batch: Batch, losses: Losses) -> EdgekitError:
        """The error for a loss that is NaN or infinite; it names the batch."""
        progress = self.progress
        place = f"epoch {self._epoch_number() + 1}, batch {progress.batch + 1}"
        is_here = not bool(torch.isfinite(losses.total))
        value = self.job.world.together([losses.total.item()] if is_here else [])[0]
        images = self.job.world.together(batch.names if is_here else [])
        self.journal.write("broken", place=place, loss=str(value), images=images)
        names = ", ".join(images[:3]) + (", ..." if len(images) > 3 else "")
        return EdgekitError(
            f"the loss became {value} in {place} (images {names}): lower --lr, or look at the "
            f"images; log.jsonl names all {len(images)}"
        )

    def _start_codebook(self, source: Source) -> None:
        """Switch the quantizer on, with its codewords placed where the features are."""
        job, codebook = self.job, self.model.head.codebook
        assert codebook is not None
        if job.config.kmeans:
            features = source.sample(self.model, job.device)
            codebook.initialize(features, seed=job.config.seed)
            averaged = self.average.model.head.codebook
            assert averaged is not None
            averaged.load_state_dict(codebook.state_dict())
        self.progress.quantizes = True

    def _reset_dead_codes(self) -> int:
        """Move the codewords that were not used in this epoch; return how many."""
        job, codebook = self.job, self.model.head.codebook
        assert codebook is not None
        assert self.last_features is not None
        dead = codebook.usage < 1
        features = job.world.in_order(self.last_features.flatten(0, -2).float())
        count = codebook.reset_dead(features, seed=job.config.seed + self._epoch_number())
        if count:
            averaged = self.average.model.head.codebook
            assert averaged is not None
            for mine, theirs in zip(
                averaged.state_dict().values(), codebook.state_dict().values(), strict=True
            ):
                mine[dead] = theirs[dead]
            forget_rows(self.optimizer, codebook.embeddings, dead)
        return count

    def _end_epoch(self, epoch: int, lr: float, seconds: float, bar: ProgressBar) -> None:
        job, progress, config = self.job, self.progress, self.job.config
        record: dict[str, Any] = {"epoch": epoch + 1, "phase": self.phase.name, "lr": lr}
        record |= self._means()
        codebook = self.model.head.codebook
        if codebook is not None and progress.quantizes:
            codebook.usage.copy_(job.world.total(codebook.usage))
            record["used_codes"] = int((codebook.usage > 0).sum())
            record["perplexity"] = perplexity(codebook.usage)
            # Not in the last quarter: the head needs time to learn the meaning of a new codeword.
            if config.reset_dead_codes and 4 * (progress.epoch + 1) <= 3 * self.phase.epochs:
                record["reset_codes"] = self._reset_dead_codes()
            codebook.reset_usage()
        plain = self._deployable()
        (validation,) = self.phase.evaluate([plain])
        record["validation"] = validation.to_dict()
        record["seconds"] = round(seconds, 2)
        improved = progress.best is None or validation.criterion < progress.best
        if progress.phase_best is None or validation.criterion < progress.phase_best:
            progress.phase_best, progress.stale_epochs = validation.criterion, 0
        else:
            progress.stale_epochs += 1
        progress.stopped_early = 0 < config.patience <= progress.stale_epochs
        progress.epoch, progress.batch = progress.epoch + 1, 0
        progress.skipped_images = len(set(job.world.together(job.skipped.messages)))
        self.sums.zero_()
        if improved:
            progress.best, progress.best_epoch = validation.criterion, epoch
            progress.best_validation = validation.to_dict()
            self._write_checkpoint("best", plain)
        bar.line(epoch_line(record, validation, improved))
        self.journal.write("epoch", **record, best=improved)
        self.journal.figures(epoch + 1, curves(record, validation))

    def _end_phase(self) -> None:
        """Move on to the next phase, from the averaged weights."""
        progress = self.progress
        self.model.load_state_dict(self.average.model.state_dict())
        for method in reversed(self.methods):
            method.detach(self.model)
        progress.phase += 1
        if progress.phase < len(self.job.phases):
            progress.epoch = progress.step = progress.stale_epochs = 0
            progress.phase_best, progress.stopped_early = None, False
        else:
            progress.finished = True
            self._save()

    def _epoch_number(self) -> int:
        """The number of the epoch over all phases, which decides data order and corruptions."""
        earlier = self.job.phases[: self.progress.phase]
        return sum(phase.epochs for phase in earlier) + self.progress.epoch

    def _means(self) -> dict[str, float]:
        totals = self.job.world.total(self.sums.to(self.job.device)).cpu()
        return dict(zip(self.terms, (totals[:-1] / totals[-1]).tolist(), strict=True))

    def _figures(self) -> str:
        """The means of this process's part of the epoch so far, for the progress bar."""
        loss, ce, pull, commitment, wrong, *_ = (self.sums[:-1] / self.sums[-1]).tolist()
        text = f"loss {loss:.3f}, error {100 * wrong:.1f}%"
        codebook = self.model.head.codebook
        if codebook is not None and self.progress.quantizes:
            used = int((codebook.usage > 0).sum())
            text += f" (class {ce:.3f}, codebook {pull:.3f}, commitment {commitment:.3f})"
            text += f", codes {used}/{codebook.usage.numel()}"
        return text

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "fp32":
            return contextlib.nullcontext()
        kind = torch.bfloat16 if self.precision == "bf16" else torch.float16
        return torch.autocast(self.job.device.type, dtype=kind)

    def _deployable(self) -> VQSA:
        """The averaged model without what methods added: what is validated and saved."""
        return deployable(self.average.model, self.methods)

    def _write_checkpoint(self, name: str, model: VQSA) -> None:
        if self.job.world.leads:
            save_checkpoint(self.job.out / f"{name}.safetensors", model, self.job.card)

    def _save(self) -> None:
        """Write the last checkpoint and the state; every process must take part."""
        self.saved_at = time.monotonic()
        world, codebook = self.job.world, self.model.head.codebook
        usage = torch.zeros(0) if codebook is None else codebook.usage
        # The leader takes over the others' counts since the epoch began.
        usage.copy_(world.total(usage))
        self.sums.copy_(world.total(self.sums.to(self.job.device)))
        if not world.leads:
            usage.zero_()
            self.sums.zero_()
            return
        self._write_checkpoint("last", self._deployable())
        self.progress.log_bytes = self.journal.length()
        state = RunState(
            identity=self.job.identity,
            provenance=self.job.provenance,
            progress=dataclasses.replace(self.progress),
            model=self._own_part(self.model),
            average=self._own_part(self.average.model),
            optimizer=self.optimizer.state_dict(),
            scaler=self.scaler.state_dict(),
            usage=usage,
            sums=self.sums,
        )
        save_state(self.job.out / STATE, state)

    def _own_part(self, model: VQSA) -> dict[str, Tensor]:
        """The weights that this run changes; a frozen backbone need not be saved."""
        everything = model.state_dict()
        if any(phase.learns_backbone for phase in self.job.phases):
            return everything
        return {name: value for name, value in everything.items() if name.startswith("head.")}

    def _restore(self, state: RunState) -> None:
        self.optimizer.load_state_dict(state.optimizer)
        self.average.model.load_state_dict(state.average, strict=False)
        self.scaler.load_state_dict(state.scaler)
        if self.job.world.leads:
            self.sums.copy_(state.sums)
            if self.model.head.codebook is not None:
                self.model.head.codebook.usage.copy_(state.usage)
