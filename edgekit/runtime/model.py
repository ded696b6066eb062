"""Runs a bundle: ``edgekit.load(path).predict(images)``.

Needs NumPy, Pillow and the bundle's own runtime, but no build tools.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.manifest import Manifest
from edgekit.bundle.signature import verify
from edgekit.bundle.store import Bundle, open_bundle
from edgekit.core.errors import EdgekitError, ToolchainMissing, UsageError
from edgekit.core.folders import existing_folder, locked
from edgekit.core.step_cache import cache_root
from edgekit.core.threads import WAIT_SECONDS, result_of, submit
from edgekit.runtime.answers import Answers
from edgekit.runtime.runner import Runner, open_runner, run_settings
from edgekit.targets.descriptor import Hint, missing_isa

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

    Item: TypeAlias = "NDArray[np.uint8] | PillowImage | str | os.PathLike[str]"
    Images: TypeAlias = "Item | Sequence[Item]"

_TOP: Final = 5


@dataclass(frozen=True)
class Prediction:
    """The model's answer for one image; with ``error`` set, only the reason why there is none."""

    source: str
    """The file, or ``image 3`` for the fourth of several arrays."""
    label: str | None = None
    index: int | None = None
    """The label's index."""
    probability: float | None = None
    top: tuple[tuple[str, float], ...] = ()
    """The most probable labels with their probabilities, best first."""
    code: int | tuple[int, ...] | None = None
    """The codeword chosen; a tuple where every position of the feature map is quantized."""
    margin: float | tuple[float, ...] | None = None
    """How much better that codeword fits than the second best."""
    milliseconds: float | None = None
    """Time in the network; an equal share of it if several images went through together."""
    error: str | None = None


class Predictions(Sequence[Prediction]):
    """Predictions in the order of their images, with columns as properties."""

    def __init__(self, predictions: Iterable[Prediction]) -> None:
        self._all = tuple(predictions)

    @overload
    def __getitem__(self, index: int) -> Prediction: ...

    @overload
    def __getitem__(self, index: slice) -> Predictions: ...

    def __getitem__(self, index: int | slice) -> Prediction | Predictions:
        if isinstance(index, slice):
            return Predictions(self._all[index])
        return self._all[index]

    def __len__(self) -> int:
        return len(self._all)

    def __repr__(self) -> str:
        return f"Predictions({list(self._all)!r})"

    @property
    def labels(self) -> list[str | None]:
        """The label of every image; None for a bad image."""
        return [one.label for one in self._all]

    @property
    def probabilities(self) -> list[float | None]:
        """The probability of every label."""
        return [one.probability for one in self._all]

    @property
    def codes(self) -> list[int | tuple[int, ...] | None]:
        """The codeword of every image."""
        return [one.code for one in self._all]

    @property
    def errors(self) -> list[Prediction]:
        """The bad images."""
        return [one for one in self._all if one.error is not None]


class Model:
    """A bundle ready to predict; any number of threads may use it at the same time.

    It belongs to the process that loaded it: a runtime's threads do not survive a fork, so a call
    in the child would wait for them forever.
    """

    def __init__(self, bundle: Bundle, runner: Runner, batch: int) -> None:
        self._process = os.getpid()
        self._bundle = bundle
        self._runner = runner
        self._batch = batch  # images per inference; 0 for any number
        self.labels = bundle.labels

    @property
    def bundle(self) -> Bundle:
        """The opened bundle."""
        return self._bundle

    @property
    def manifest(self) -> Manifest:
        """Everything the bundle declares about itself."""
        return self._bundle.manifest

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images that `run` takes."""
        return self.manifest.preprocessing.size

    @property
    def parallel(self) -> int:
        """Calls of `run` that execute in parallel; further callers wait."""
        return self._runner.parallel

    def describe(self) -> dict[str, str | int]:
        """What the runtime uses: version, threads, streams, precision."""
        return self._runner.describe()

    def run(self, batch: NDArray[np.uint8]) -> Answers:
        """Run the network alone, on RGB uint8 [B, height, width, 3] already of the model's size.

        `Preprocessing.fit` (``model.manifest.preprocessing.fit``) brings an image to that size.
        """
        self._check_process()
        shape = (*self.size, 3)
        if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[1:] != shape:
            raise UsageError(
                f"run takes uint8 [B, {shape[0]}, {shape[1]}, 3], not {batch.dtype} "
                f"{list(batch.shape)}: use predict for images of any size"
            )
        return self._runner.run(batch)

    def predict(self, images: Images, *, top: int = _TOP, fitted: bool = False) -> Predictions:
        """Classify one image or several: arrays, Pillow images, paths, or a list of these.

        An array is RGB uint8 [H, W, 3], or [B, H, W, 3] for several. Images of any size are fitted
        to the model's size as in training; ``fitted`` says that arrays already are. A bad image is
        not fatal: its prediction carries the error.
        """
        self._check_process()
        items = _items(images)
        batch = self._batch or min(len(items), 32) or 1
        if len(items) <= batch:  # one inference: no threads, no waiting
            return Predictions(self._predict_batch(list(enumerate(items)), top, fitted))
        return Predictions(self.predict_stream(items, batch=batch, top=top, fitted=fitted))

    def predict_stream(
        self,
        images: Iterable[Item],
        *,
        batch: int = 1,
        in_flight: int | None = None,
        top: int = _TOP,
        fitted: bool = False,
    ) -> Iterator[Prediction]:
        """Classify a stream: yields predictions in the order of ``images`` as they become ready.

        Decoding and inference of ``batch`` images at a time run in the background, at most
        ``in_flight`` batches ahead of the reader (default: enough to keep the runtime busy), so
        memory stays bounded however long the stream is. ``images`` is read in the caller's
        thread; leaving the loop early stops the work.
        """
        self._check_process()
        if batch < 1 or (in_flight is not None and in_flight < 1):
            raise UsageError("predict_stream: batch and in_flight must be at least 1")
        return self._stream(
            iter(images), batch, in_flight or self._runner.parallel + 1, top, fitted
        )

    def _stream(
        self, images: Iterator[Item], batch: int, in_flight: int, top: int, fitted: bool
    ) -> Iterator[Prediction]:
        numbered = enumerate(images)
        waiting: deque[Future[list[Prediction]]] = deque()
        done = 0

        def oldest() -> list[Prediction]:
            nonlocal done
            self._check_process()
            results = result_of(waiting[0], f"{self._bundle.path}: the answer to image {done}")
            waiting.popleft()
            done += len(results)
            return results

        try:
            while chunk := list(itertools.islice(numbered, batch)):
                self._check_process()
                waiting.append(submit(self._predict_batch, chunk, top, fitted))
                while waiting and (len(waiting) >= in_flight or waiting[0].done()):
                    yield from oldest()
            while waiting:
                yield from oldest()
        finally:
            if os.getpid() == self._process:
                self._stop(waiting)

    def _stop(self, waiting: Iterable[Future[list[Prediction]]]) -> None:
        """Stop all work: cancel what has not begun, wait for the rest."""
        running = [future for future in waiting if not future.cancel()]
        if not sys.is_finalizing():  # then no thread makes progress
            wait(running, WAIT_SECONDS)

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise UsageError(
                f"{self._bundle.path} was loaded in process {self._process}, and a runtime does "
                f"not survive a fork (into process {os.getpid()}): call edgekit.load in the child"
            )

    def __reduce__(self) -> NoReturn:
        raise UsageError(
            f"a loaded model ({self._bundle.path}) cannot be pickled: send the bundle's path, and "
            "call edgekit.load in the receiving process"
        )

    def _predict_batch(
        self, items: list[tuple[int, Item]], top: int, fitted: bool
    ) -> list[Prediction]:
        results: dict[int, Prediction] = {}
        good: list[tuple[int, str, NDArray[np.uint8]]] = []
        for index, item in items:
            name = _name(item, index)
            try:
                good.append((index, name, self._pixels(item, name, fitted)))
            except UsageError as error:  # BadImage included
                results[index] = Prediction(name, error=str(error))
        if good:
            raw = self._runner.run(np.stack([pixels for _, _, pixels in good]))
            share = raw.seconds * 1e3 / len(good)
            for row, (index, name, _) in enumerate(good):
                results[index] = self._prediction(raw, row, name, top, share)
        return [results[index] for index, _ in items]

    def _pixels(self, item: Item, name: str, fitted: bool) -> NDArray[np.uint8]:
        """One item as RGB uint8 of the model's size."""
        if isinstance(item, (str, os.PathLike)):
            from edgekit.data.decode import decode_file

            return self.manifest.preprocessing.fit(decode_file(Path(item)))
        image = item if isinstance(item, np.ndarray) else _from_pillow(item, name)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise UsageError(
                f"{name} is {image.dtype} {list(image.shape)}, expected uint8 [H, W, 3]"
            )
        if not fitted or not isinstance(item, np.ndarray):
            return self.manifest.preprocessing.fit(image)
        if image.shape[:2] != self.size:
            raise UsageError(f"{name} is {list(image.shape)}, fitted images are {list(self.size)}")
        return image

    def _prediction(
        self, raw: Answers, row: int, name: str, top: int, milliseconds: float
    ) -> Prediction:
        logits = raw.logits[row].astype(np.float64)
        powers = np.exp(logits - logits.max())
        probabilities = powers / powers.sum()
        order = np.argsort(-probabilities, kind="stable")[: max(top, 1)]
        best = int(order[0])
        return Prediction(
            source=name,
            label=self.labels[best],
            index=best,
            probability=float(probabilities[best]),
            top=tuple((self.labels[i], float(probabilities[i])) for i in order),
            code=_plain(raw.code, row),
            margin=_plain(raw.margin, row),
            milliseconds=milliseconds,
        )


def load(
    path: str | os.PathLike[str],
    *,
    threads: int | None = None,
    hint: Hint | None = None,
    batch: int | None = None,
    cache: bool = True,
    signers: str | os.PathLike[str] | None = None,
    at_least: int | None = None,
) -> Model:
    """Open a bundle (its folder or .zip), check it, and make its model ready.

    ``threads`` (0: the runtime's choice), ``hint`` ("latency" or "throughput") and ``batch``
    (images per inference) override the bundle's target. ``cache`` keeps the compiled model in the
    user's cache folder, which makes the next load faster. ``signers`` is a file in the format of
    OpenSSH's allowed_signers: only a bundle signed by somebody in it is accepted, and with
    ``at_least`` only with a sequence number that is not smaller. Every refusal is an error of one
    line.
    """
    if at_least is not None and signers is None:
        raise UsageError("at_least is a number that a signer gave: name the file of signers, too")
    where = Path(path)
    with locked(existing_folder(where), shared=True):
        bundle = open_bundle(where)
        if signers is not None:
            verify(bundle, Path(signers), at_least)
        target = bundle.manifest.target
        if missing := missing_isa(target):
            raise ToolchainMissing(
                f"{where}: its INT8 needs a CPU with {missing}, which this one lacks: build it "
                "with '--target cpu' on this machine"
            )
        settings = run_settings(target, threads=threads, hint=hint, batch=batch)
        runner = open_runner(bundle, settings, _cache_folder() if cache else None)
        model = Model(bundle, runner, settings.batch)
    raw = model.run(np.zeros((1, *model.size, 3), np.uint8))  # the first call is slower than others
    if raw.logits.shape != (1, len(bundle.labels)):
        raise EdgekitError(
            f"{where}: the model gives {list(raw.logits.shape)} logits, there are "
            f"{len(bundle.labels)} labels: build the bundle again"
        )
    return model


def _cache_folder() -> Path | None:
    try:
        return cache_root() / "compiled"
    except UsageError:  # no home folder: loading is only slower
        return None


def _items(images: Images) -> Sequence[Item]:
    if isinstance(images, np.ndarray):
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[-1] != 3:
            raise UsageError(
                f"predict takes uint8 [H, W, 3] or [B, H, W, 3], not {images.dtype} "
                f"{list(images.shape)}"
            )
        return list(images) if images.ndim == 4 else [images]
    if isinstance(images, Sequence) and not isinstance(images, str):
        return images
    return [images]


def _name(item: Item, index: int) -> str:
    if isinstance(item, (str, os.PathLike)):
        return os.fspath(item)
    return str(getattr(item, "filename", "") or f"image {index}")


def _from_pillow(image: object, name: str) -> NDArray[np.uint8]:
    """A Pillow image as `decode` would return it: upright, composited, RGB."""
    from PIL import Image

    from edgekit.data import decode

    if not isinstance(image, Image.Image):
        raise UsageError(
            f"{name} is a {type(image).__name__}, expected a path, a uint8 array or a Pillow image"
        )
    try:
        image.load()
    except (OSError, SyntaxError, ValueError) as error:  # an opened file is decoded only now
        raise decode.BadImage(f"{name} is corrupt or truncated: {error}") from error
    return decode.pixels_of(image, name)


def _plain(values: NDArray[Any] | None, row: int) -> Any:
    """Row ``row`` as a Python number, or a tuple of them; None where the model has none."""
    if values is None:
        return None
    value = values[row].tolist()
    return tuple(value) if isinstance(value, list) else value
