"""Validates a quantized network against the float one on the same clean and corrupted images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgekit.core.errors import Interrupted
from edgekit.data.base import IndexArray
from edgekit.data.pool import Pool
from edgekit.data.transforms import Preprocessing
from edgekit.quantize.qat.network import Network
from edgekit.quantize.qat.results import Validation
from edgekit.training.distributed import World
from edgekit.training.evaluation import Choices, Tally, choices
from edgekit.training.results import Evaluation
from edgekit.training.stop_signal import StopSignal
from edgekit.training.validation import Group, image_groups
from edgekit.training.views import LoadedViews, Unreadable, View


class Validator:
    """The validation images, how each is corrupted, and the float model's choices for them."""

    def __init__(
        self,
        indices: IndexArray,
        corruptions: Sequence[str],
        preprocessing: Preprocessing,
        pool: Pool[View, LoadedViews | Unreadable],
        original: Network,
        world: World,
        device: torch.device,
        stop: StopSignal,
    ) -> None:
        self._indices, self.corruptions = indices, tuple(corruptions)
        self._preprocessing, self._pool, self._original = preprocessing, pool, original
        self._world, self._device, self._stop = world, device, stop
        self._float_choices: dict[int, Choices] = {}  # by the number of the group

    def first_pixels(self) -> NDArray[np.float32]:
        """Some views, the same however many processes there are."""
        return next(self._groups(World())).pixels

    def _groups(self, world: World) -> Iterator[Group]:
        """This process's share of the images, each clean and under every corruption."""
        return image_groups(self._indices, self.corruptions, self._preprocessing, self._pool, world)

    @torch.inference_mode()
    def __call__(self, network: Network) -> Validation:
        """Validate one network. Ctrl-C interrupts it, so save the state before."""
        each = 1 + len(self.corruptions)
        tally, float_tally = Tally(self.corruptions, None), Tally(self.corruptions, None)
        agreement = _Agreement()
        for number, group in enumerate(self._groups(self._world)):
            if self._stop.requested:
                raise Interrupted("interrupted in validation: run the same command to resume")
            images = torch.from_numpy(group.pixels).to(self._device)
            if number not in self._float_choices:
                self._float_choices[number] = choices(self._original(images), each)
            ours = choices(network(images), each)
            tally.add(group.labels, group.severities, ours)
            float_tally.add(group.labels, group.severities, self._float_choices[number])
            agreement.add(ours, self._float_choices[number])
        world, device = self._world, self._device
        errors, float_errors = (one.result(world, device) for one in (tally, float_tally))
        return agreement.validation(errors, float_errors, world, device)


class _Agreement:
    """How often two models made the same choices."""

    def __init__(self) -> None:
        # Equal ones and all: classes of all views, codes of clean and of corrupted views.
        self._counts = torch.zeros(3, 2, dtype=torch.long)

    def add(self, ours: Choices, original: Choices) -> None:
        """Count both models' choices for the same images."""
        _count(self._counts[0], ours.top == original.top)
        if ours.code is not None and original.code is not None:
            same = ours.code == original.code
            _count(self._counts[1], same[:, 0])
            _count(self._counts[2], same[:, 1:])

    def validation(
        self, ours: Evaluation, original: Evaluation, world: World, device: torch.device
    ) -> Validation:
        """The agreement in all processes, together with both models' errors."""
        classes, clean, corrupted = map(_share, world.total(self._counts.to(device)).tolist())
        assert classes is not None  # there are images, or there were no errors to count
        return Validation(
            images=ours.images,
            clean_error=ours.clean_error,
            float_clean_error=original.clean_error,
            mean_corruption_error=ours.mean_corruption_error,
            float_mean_corruption_error=original.mean_corruption_error,
            code_agreement_clean=clean,
            code_agreement_corrupted=corrupted,
            top1_agreement=classes,
        )


def _count(counts: Tensor, same: Tensor) -> None:
    counts[0] += int(same.sum())
    counts[1] += same.numel()


def _share(counts: list[int]) -> float | None:
    return counts[0] / counts[1] if counts[1] else None
