"""The fine-tuning loop: epochs of paired batches, with everything a killed run resumes from."""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim import Adam

from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError, Interrupted
from edgekit.core.files import write_bytes
from edgekit.core.progress import ProgressBar
from edgekit.data.base import IndexArray
from edgekit.data.loading import Skipped
from edgekit.quantize.qat.config import FinetuneConfig
from edgekit.quantize.qat.evaluation import Validator
from edgekit.quantize.qat.losses import Losses, finite, losses
from edgekit.quantize.qat.network import Network
from edgekit.quantize.qat.results import Validation
from edgekit.training.batches import Batch, ImageSource
from edgekit.training.determinism import step_seed
from edgekit.training.distributed import World
from edgekit.training.journal import Journal
from edgekit.training.optimizer import learning_rate
from edgekit.training.run_folder import BEST, STATE
from edgekit.training.run_state import Progress, RunState, save_state
from edgekit.training.stop_signal import StopSignal

_SUMS = ("loss", "task", "distill", "code", "feature", "error", "flipped")


@dataclass(frozen=True)
class FinetuneJob:
    """Everything the loop needs; `edgekit.workflows.finetune` assembles it."""

    config: FinetuneConfig
    identity: str
    provenance: str
    network: Network
    original: Network
    train: IndexArray
    source: ImageSource
    validate: Validator
    world: World
    device: torch.device
    console: Console
    stop: StopSignal
    skipped: Skipped

    @property
    def out(self) -> Path:
        """The run's folder."""
        return self.config.out


class FinetuneLoop:
    """A run in progress; epoch 0 is the calibrated network, which is a candidate as well."""

    def __init__(self, job: FinetuneJob, state: RunState | None) -> None:
        self.job = job
        self.progress = state.progress if state else Progress(quantizes=True)
        self.journal = Journal(job.out, self.progress.log_bytes, job.world.leads)
        network, config = job.network, job.config
        weights = [*network.weights.parameters(), *network.biases.parameters()]
        self.optimizer = Adam(
            [
                {"params": weights, "lr": config.lr},
                {"params": [*network.log_scales.parameters()], "lr": config.scale_lr},
            ]
        )
        self.peaks = (config.lr, config.scale_lr)
        self.sums = torch.zeros(len(_SUMS) + 1, dtype=torch.float64)
        self.saved_at = time.monotonic()
        if state is not None:
            network.load_state_dict(state.model)
            self.optimizer.load_state_dict(state.optimizer)
            if job.world.leads:
                self.sums.copy_(state.sums)

    def go(self) -> Progress:
        """Run to the end; leaves the best network's parameters and the last state on disk."""
        progress, config = self.progress, self.job.config
        per_epoch = self.job.source.batches_per_epoch()
        total = per_epoch * config.epochs
        try:
            if progress.best is None:
                self._validate_start()
            with ProgressBar(self.job.console, "fine-tune", total, progress.step) as bar:
                while progress.epoch < config.epochs and not progress.stopped_early:
                    self._epoch(per_epoch, total, bar)
            progress.finished = True
            self._save()
        finally:
            self.journal.close()
        return progress

    def _validate_start(self) -> None:
        """What calibration alone achieves: the bar that every epoch has to clear."""
        validation = self.job.validate(self.job.network)
        self._note_best(validation, -1)
        self.journal.write(
            "start",
            calibrated=validation.to_dict(),
            validated_on=self.job.validate.corruptions,
            processes=self.job.world.size,
            seed=self.job.config.seed,
        )
        self.job.console.info(f"calibrated: {validation.describe()}")
        self._save()

    def _epoch(self, per_epoch: int, total: int, bar: ProgressBar) -> None:
        progress, config, source = self.progress, self.job.config, self.job.source
        started = time.monotonic()
        for batch in source.batches(progress.epoch, progress.batch):
            rate = learning_rate(1.0, progress.step, total, config.warmup)
            for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
                group["lr"] = peak * rate
            self._step(batch)
            progress.batch += 1
            progress.step += 1
            bar.advance(1, self._figures())
            stop, due = self._stop_and_due()
            if stop or due or progress.batch == per_epoch:
                self._save()  # also at the end of an epoch: validation may be interrupted
            if stop:
                raise Interrupted(
                    f"interrupted in epoch {progress.epoch + 1}: run the same command to resume"
                )
        rate = config.lr * learning_rate(1.0, progress.step - 1, total, config.warmup)
        self._end_epoch(rate, time.monotonic() - started, bar)

    def _stop_and_due(self) -> tuple[bool, bool]:
        """Whether to stop and to save, alike in all processes; the leader's clock decides."""
        job = self.job
        due = job.world.leads and time.monotonic() - self.saved_at > job.config.save_every
        votes = job.world.total(torch.tensor([job.stop.requested, due], device=job.device).int())
        return bool(votes[0]), bool(votes[1])

    def _step(self, batch: Batch) -> None:
        job, progress = self.job, self.progress
        torch.manual_seed(step_seed(job.config.seed, 0, progress.step, job.world.rank))
        images, labels = batch.inputs.to(job.device), batch.labels.to(job.device)
        with torch.no_grad():
            original = job.original(images)
        parts = losses(job.network(images), original, labels, job.config)
        own = torch.tensor([len(labels), not finite(parts.total)], dtype=torch.float64)
        views, broken = job.world.total(own.to(job.device)).tolist()
        if broken:
            raise self._broken(batch, parts)
        self.optimizer.zero_grad(set_to_none=True)
        # A process's means are weighted by its views: the sum is the mean over the global batch.
        (parts.total * (len(labels) / views)).backward()
        job.world.add_gradients(job.network.parameters())
        if job.config.clip_norm:
            nn.utils.clip_grad_norm_(job.network.parameters(), job.config.clip_norm)
        self.optimizer.step()
        self._add(parts, len(labels), original.scores)

    def _broken(self, batch: Batch, parts: Losses) -> EdgekitError:
        """The error for a loss that is NaN or infinite; it names the batch."""
        place = f"epoch {self.progress.epoch + 1}, batch {self.progress.batch + 1}"
        is_here = not finite(parts.total)
        value = self.job.world.together([parts.total.item()] if is_here else [])[0]
        images = self.job.world.together(batch.names if is_here else [])
        self.journal.write("broken", place=place, loss=str(value), images=images)
        names = ", ".join(images[:3]) + (", ..." if len(images) > 3 else "")
        return EdgekitError(
            f"the loss became {value} in {place} (images {names}): lower --lr or --scale-lr; "
            f"log.jsonl names all {len(images)}"
        )

    def _add(self, parts: Losses, views: int, scores: Tensor | None) -> None:
        means = torch.stack([value.detach().double() for value in parts[:5]]).cpu() * views
        flips = float(parts.flipped) * views / (len(scores) if scores is not None else 1)
        self.sums += torch.cat([means, torch.tensor([float(parts.wrong), flips, float(views)])])

    def _figures(self) -> str:
        loss, task, distill, code, feature, wrong, flips = (self.sums[:-1] / self.sums[-1]).tolist()
        return (
            f"loss {loss:.3f} (class {task:.3f}, distill {distill:.4f}, code {code:.4f}, "
            f"feature {feature:.4f}), error {100 * wrong:.1f}%, other codes {100 * flips:.1f}%"
        )

    def _end_epoch(self, rate: float, seconds: float, bar: ProgressBar) -> None:
        job, progress = self.job, self.progress
        validation = job.validate(job.network)
        record: dict[str, Any] = {"epoch": progress.epoch + 1, "lr": rate}
        sums = self._total_sums()
        if sums[-1] > 0:
            record |= dict(zip(_SUMS, (sums[:-1] / sums[-1]).tolist(), strict=True))
        improved = self._note_best(validation, progress.epoch)
        progress.stale_epochs = 0 if improved else progress.stale_epochs + 1
        progress.stopped_early = 0 < job.config.patience <= progress.stale_epochs
        progress.epoch, progress.batch = progress.epoch + 1, 0
        progress.skipped_images = len(set(job.world.together(job.skipped.messages)))
        self.sums.zero_()
        bar.line(
            f"epoch {progress.epoch}: loss {record.get('loss', 0):.4f}, {validation.describe()}"
            + (" *" if improved else "")
        )
        self.journal.write(
            "epoch",
            **record,
            validation=validation.to_dict(),
            seconds=round(seconds, 2),
            best=improved,
        )
        self.journal.figures(progress.epoch, _curves(record, validation))
        self._save()

    def _note_best(self, validation: Validation, epoch: int) -> bool:
        """Save the network if it beats all earlier ones; return whether it does."""
        progress = self.progress
        best = progress.best_validation
        if best and validation.criterion >= Validation(**best).criterion:
            return False
        progress.best, progress.best_epoch = validation.criterion[0], epoch
        progress.best_validation = validation.to_dict()
        self._write_best(validation, epoch)
        return True

    def _total_sums(self) -> Tensor:
        return self.job.world.total(self.sums.to(self.job.device)).cpu()

    def _write_best(self, validation: Validation, epoch: int) -> None:
        if not self.job.world.leads:
            return
        state = _cpu(self.job.network.state_dict())
        card = {"identity": self.job.identity, "epoch": epoch + 1, **validation.to_dict()}
        metadata = {"edgekit.finetune": json.dumps(card, sort_keys=True)}
        write_bytes(self.job.out / BEST, safetensors.torch.save(state, metadata=metadata))

    def _save(self) -> None:
        """Write the state that a killed run resumes from; every process must take part."""
        self.saved_at = time.monotonic()
        self.sums.copy_(self._total_sums())  # the leader takes over the others'
        if not self.job.world.leads:
            self.sums.zero_()
            return
        self.progress.log_bytes = self.journal.length()
        state = RunState(
            identity=self.job.identity,
            provenance=self.job.provenance,
            progress=dataclasses.replace(self.progress),
            model=self.job.network.state_dict(),
            average={},
            optimizer=self.optimizer.state_dict(),
            scaler={},
            usage=torch.zeros(0),
            sums=self.sums,
        )
        save_state(self.job.out / STATE, state)


def _cpu(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in state.items()}


def _curves(record: dict[str, Any], validation: Validation) -> dict[str, float | None]:
    figures: dict[str, float | None] = {f"train/{name}": record.get(name) for name in _SUMS}
    figures["codes/agreement_clean"] = validation.code_agreement_clean
    figures["codes/agreement_corrupted"] = validation.code_agreement_corrupted
    figures["validation/clean_error"] = validation.clean_error
    figures["validation/mean_corruption_error"] = validation.mean_corruption_error
    return figures
