"""Judges a quantized network beside the float one on the same clean and corrupted images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgekit.core.errors import Interrupted, UsageError
from edgekit.data.base import Dataset, IndexArray
from edgekit.data.loading import batched
from edgekit.data.pool import Pool
from edgekit.data.transforms import Preprocessing
from edgekit.quantize.qat.network import Network, NetworkOutput
from edgekit.training.corruption_schedule import CLEAN, Corruption, rotated_severities
from edgekit.training.stop_signal import StopSignal
from edgekit.training.views import Seen, Unreadable, View

_VIEWS = 64  # that go through the network together, about


@dataclass(frozen=True)
class Judgment:
    """Errors as fractions in [0, 1]; ``float_`` ones are the original's on the same images.

    The mean corruption error is unnormalized: the mean over types of the error, each image at one
    severity per type.
    """

    images: int
    clean_error: float
    float_clean_error: float
    mean_corruption_error: float | None  # None without corruptions
    float_mean_corruption_error: float | None
    code_agreement_clean: float | None  # fraction of features with the float model's codeword
    code_agreement_corrupted: float | None
    top1_agreement: float  # fraction of views with the float model's class

    @property
    def criterion(self) -> tuple[float, float]:
        """What early stopping minimizes: the error beyond the float model's, then other codes.

        An error below the float model's is luck of these images and does not count: it would
        keep whatever was lucky first.
        """
        ours, original = self.mean_corruption_error, self.float_mean_corruption_error
        if ours is None or original is None:
            ours, original = self.clean_error, self.float_clean_error
        return max(0.0, ours - original), 1 - self.code_agreement

    @property
    def code_agreement(self) -> float:
        """Of corrupted images, or of clean ones where there are no others; 1 without codes."""
        found = self.code_agreement_corrupted
        found = self.code_agreement_clean if found is None else found
        return 1.0 if found is None else found

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def describe(self) -> str:
        """One line, in percent."""
        text = f"validation error {_pair(self.clean_error, self.float_clean_error)} clean"
        if self.mean_corruption_error is not None:
            assert self.float_mean_corruption_error is not None
            pair = _pair(self.mean_corruption_error, self.float_mean_corruption_error)
            text += f", {pair} corrupted"
        if self.code_agreement_clean is not None:
            text += f", same code {100 * self.code_agreement_clean:.1f}% clean"
        if self.code_agreement_corrupted is not None:
            text += f", {100 * self.code_agreement_corrupted:.1f}% corrupted"
        return text


def _pair(ours: float, original: float) -> str:
    return f"{100 * ours:.2f}% (float {100 * original:.2f}%)"


class _Answers(NamedTuple):
    """The float model's answers to a group of views, kept for later epochs."""

    choice: Tensor  # [V] class
    code: Tensor | None  # [V] or [V, P]


class Judge:
    """Validation images, how each is seen, and the float model's answers to them."""

    def __init__(
        self,
        dataset: Dataset,
        indices: IndexArray,
        corruptions: Sequence[str],
        preprocessing: Preprocessing,
        pool: Pool[View, Seen | Unreadable],
        original: Network,
        device: torch.device,
        stop: StopSignal,
    ) -> None:
        self._dataset, self._indices, self._corruptions = dataset, indices, tuple(corruptions)
        self._preprocessing, self._pool, self._original = preprocessing, pool, original
        self._device, self._stop = device, stop
        self._kept: dict[int, _Answers] = {}

    def views(self) -> list[View]:
        """Every image clean and under each type, at severities that rotate over the images."""
        severities = [
            rotated_severities(len(self._indices), number)
            for number in range(len(self._corruptions))
        ]
        return [
            View(
                int(index),
                (
                    CLEAN,
                    *(
                        Corruption(name, int(severities[number][row]))
                        for number, name in enumerate(self._corruptions)
                    ),
                ),
            )
            for row, index in enumerate(self._indices.tolist())
        ]

    def pixels(self) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """Groups of normalized views [V, 3, H, W] and their labels [V], whole images."""
        each = 1 + len(self._corruptions)
        results = self._pool.map(self.views())
        for group in batched(results, max(1, _VIEWS // each)):
            seen = [result for result in group if isinstance(result, Seen)]
            if seen:
                pixels = np.concatenate([result.images for result in seen])
                labels = np.repeat([result.label for result in seen], each)
                yield self._preprocessing.normalize(pixels), labels.astype(np.int64)

    @torch.inference_mode()
    def __call__(self, network: Network) -> Judgment:
        """Judge one network; Ctrl-C ends it, so the caller saves before."""
        each = 1 + len(self._corruptions)
        # By view: images, ours wrong, the original's wrong, same class, codes, same codes.
        counts = torch.zeros(each, 6, dtype=torch.long)
        for number, (pixels, labels) in enumerate(self.pixels()):
            if self._stop.requested:
                raise Interrupted("interrupted while judging: run the same command to go on")
            images, truth = torch.from_numpy(pixels).to(self._device), torch.from_numpy(labels)
            if number not in self._kept:
                self._kept[number] = _answers(self._original(images))
            original, ours = self._kept[number], _answers(network(images))
            for view in range(each):
                rows = slice(view, None, each)
                same = ours.choice[rows] == original.choice[rows]
                found = [
                    len(truth[rows]),
                    int((ours.choice[rows] != truth[rows]).sum()),
                    int((original.choice[rows] != truth[rows]).sum()),
                    int(same.sum()),
                    0,
                    0,
                ]
                if ours.code is not None and original.code is not None:
                    same_code = ours.code[rows] == original.code[rows]
                    found[4:] = [same_code.numel(), int(same_code.sum())]
                counts[view] += torch.tensor(found)
        if not int(counts[0, 0]):
            raise UsageError("none of the images to validate on can be read: check the data")
        return _judgment(counts.double())


def _answers(output: NetworkOutput) -> _Answers:
    code = None if output.code is None else output.code.cpu()
    return _Answers(output.logits.argmax(dim=1).cpu(), code)


def _judgment(counts: Tensor) -> Judgment:
    clean, corrupted = counts[0], counts[1:]
    images = float(clean[0])
    has_codes, has_types = bool(clean[4] > 0), len(corrupted) > 0
    return Judgment(
        images=int(images),
        clean_error=float(clean[1]) / images,
        float_clean_error=float(clean[2]) / images,
        mean_corruption_error=float(corrupted[:, 1].mean()) / images if has_types else None,
        float_mean_corruption_error=float(corrupted[:, 2].mean()) / images if has_types else None,
        code_agreement_clean=float(clean[5] / clean[4]) if has_codes else None,
        code_agreement_corrupted=(
            float(corrupted[:, 5].sum() / corrupted[:, 4].sum())
            if has_codes and has_types
            else None
        ),
        top1_agreement=float(counts[:, 3].sum() / counts[:, 0].sum()),
    )
