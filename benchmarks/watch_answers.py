"""For `watch.py` and `watch_promise.py`: a model's answers, and the monitors that look at them."""

from __future__ import annotations

import pickle
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.build_record import build_record
from edgekit.core.console import Console
from edgekit.data.base import Dataset
from edgekit.data.corruption_grid import Cells, MakeVariants
from edgekit.data.corruptions import BENCHMARK15
from edgekit.data.loading import default_workers, epoch_order, load_each
from edgekit.field.detector import Experts
from edgekit.field.reference import make_reference, places
from edgekit.parity.predictors import open_bundle_predictor, open_onnx
from edgekit.report.model_facts import model_facts
from edgekit.runtime.answers import Answers, join
from edgekit.steps.build_data import BuildData, open_data
from edgekit.steps.field_options import FieldOptions
from edgekit.steps.field_reference import Lab, lab_answers
from edgekit.steps.options import DataOptions

Rows = NDArray[np.int64]
Random = np.random.Generator
SEVERITIES = (1, 2, 3, 4, 5)
PROMISE = 100_000  # images a false alarm


@dataclass(frozen=True)
class Collected:
    """Which answers a trial needs, and where they are kept."""

    bundle: Path
    data: str | None  # None: the build's own
    work: Path
    clean: int  # images, at most
    corrupted: int  # of them in every cell
    part: str = "test"

    def open(self) -> None:
        """Answers to validation and to test images, kept in ``work``."""
        if (self.work / "lab.pickle").exists() and (self.work / "answers.npz").exists():
            return
        self.work.mkdir(parents=True, exist_ok=True)
        model = open_bundle_predictor(self.bundle)
        data = self._images(model.classes)
        facts = model_facts(model.model.manifest, model.name).vqsa
        validation = data.splits.part("validation", data.dataset)
        lab = lab_answers(model, validation, Console(), FieldOptions(), labeled=data.labeled)
        with (self.work / "lab.pickle").open("wb") as stream:
            pickle.dump((lab, facts.codebook_size if facts.has_codebook else 0), stream)
        if (self.work / "answers.npz").exists():
            return
        images = data.test() if self.part == "test" else data.splits.part(self.part, data.dataset)
        cells = Cells(BENCHMARK15, SEVERITIES, seed=1)
        rows = epoch_order(len(images), 0, 0)[: self.clean].tolist()
        every = tuple(range(1 + cells.count))
        tasks = [(row, every if i < self.corrupted else (0,)) for i, row in enumerate(rows)]
        parts: list[Answers] = []
        numbers: list[int] = []
        labels: list[int] = []
        light: list[float] = []
        make = MakeVariants(model.preprocessing, cells)
        with closing(load_each(images, tasks, make, workers=default_workers(), chunk=1)) as loaded:
            for (row, which), pixels in zip(tasks, loaded, strict=True):
                parts.append(model.run(pixels))
                numbers += which
                labels += [images.label(row)] * len(which)
                light += pixels.mean(axis=(1, 2, 3)).tolist()
        own = {"number": numbers, "label": labels, "light": light}
        arrays = {**join(parts).arrays(), **own}
        np.savez(self.work / "answers.npz", **arrays)  # type: ignore[arg-type] # its stub

    def float_lab(self, graph: Path) -> tuple[Lab, int]:
        """What a reference is made of, from the float model's answers to the same images."""
        _, size = stored_lab(self.work)
        kept = self.work / "lab-float.pickle"
        if not kept.exists():
            model = open_onnx(graph)
            data = self._images(model.classes)
            validation = data.splits.part("validation", data.dataset)
            lab = lab_answers(model, validation, Console(), FieldOptions(), labeled=data.labeled)
            with kept.open("wb") as stream:
                pickle.dump(lab, stream)
        with kept.open("rb") as stream:
            return pickle.load(stream), size

    def validation(self) -> Dataset:
        """The images that the reference is made of."""
        data = self._images(open_bundle_predictor(self.bundle).classes)
        return data.splits.part("validation", data.dataset)

    def _images(self, classes: tuple[str, ...]) -> BuildData:
        build = build_record(open_bundle_predictor(self.bundle).model.manifest, str(self.bundle))
        return open_data(DataOptions(self.data or str(build.data), build.seed, False), classes)


def stored_lab(work: Path) -> tuple[Lab, int]:
    """What the reference is made of, and the codebook's size."""
    with (work / "lab.pickle").open("rb") as stream:
        lab, size = pickle.load(stream)
    return lab, size


def stored_answers(work: Path) -> tuple[Answers, dict[str, NDArray[np.generic]]]:
    """The model's answers, and all arrays that are kept with them."""
    found = np.load(work / "answers.npz")
    arrays = {name: found[name] for name in found.files}
    return Answers.of(arrays), arrays


@dataclass(frozen=True)
class Watched:
    """What one monitor looks at: codewords, or as without a codebook, classes."""

    experts: Experts
    symbol: Rows  # of each of the pool's answers
    place: Rows  # codeword or class of each
    clearness: NDArray[np.float64]  # margin or probability of each


def watched(lab: Lab, codebook_size: int, answers: Answers) -> Watched:
    """A monitor with the reference that the lab's answers give."""
    reference = make_reference(lab.normal, lab.clean, lab.cells, codebook_size)
    place, clearness = places(answers, reference.kind)
    seen = zip(place.tolist(), clearness.tolist(), strict=True)
    symbols = [reference.symbol(*each) for each in seen]
    return Watched(Experts(reference), np.array(symbols, np.int64), place, clearness)


def without_codes(lab: Lab) -> Lab:
    """The same answers of a model that has no codebook."""

    def plain(answers: Answers) -> Answers:
        return answers._replace(code=None, margin=None)

    return Lab(
        (plain(lab.normal[0]), lab.normal[1]),
        (plain(lab.clean[0]), lab.clean[1]),
        tuple((name, level, plain(given), labels) for name, level, given, labels in lab.cells),
    )


def monitors(work: Path) -> dict[str, Watched]:
    """By name: the monitor, and for a model with a codebook also as if it had none."""
    answers, _ = stored_answers(work)
    lab, size = stored_lab(work)
    found = {"monitor": watched(lab, size, answers)}
    if found["monitor"].experts.reference.kind == "code":
        found["monitor, no codes"] = watched(without_codes(lab), 0, answers)
    return found
