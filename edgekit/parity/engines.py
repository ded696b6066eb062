"""The float side, run by the fastest runtime that is shown to be equal.

ONNX Runtime is trusted. Another runtime may answer in its place if it costs less and gives the same
top-1 classes and codes, up to ties that rounding decides. Both answer for the first images, and for
a share of all later ones. If they ever differ, the comparison starts again with ONNX Runtime alone.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
import onnx
from numpy.typing import NDArray

from edgekit.core.errors import EdgekitError, ToolchainMissing, one_line
from edgekit.core.host import runtime_threads
from edgekit.data.transforms import Preprocessing
from edgekit.native.openvino_extension import extension_path
from edgekit.parity.document import EngineReport
from edgekit.parity.predictors import OnnxPredictor, Opener, Predictor, open_onnx, shares
from edgekit.runtime.answers import Answers, join
from edgekit.runtime.openvino_core import shared_core

FIRST = 64  # answers that both engines give, timed, before one is chosen
SHARE = 16  # one in this many later answers is given by both
WORTH = 0.9  # of the trusted engine's processor time: a smaller gain is not worth it
_CHUNK = 8  # images per inference
# Ties: the gap between the trusted engine's two best logits, relative to the largest logit, and its
# lookup's margin, relative to the largest margin so far. Rounding moves both by 1e-6 to 1e-5.
_TIE_LOGITS = 1e-4
_TIE_MARGIN = 1e-3
# Equal answers' logits, relative to the largest: storing them in half precision changes as much.
_LOGITS = 1e-3

Answer = Callable[[NDArray[np.uint8]], Answers]


class Checks(NamedTuple):
    """What a number of answers add to the report."""

    answered: int = 0
    checked: int = 0
    ties: int = 0


class Quick(NamedTuple):
    """The quick engine."""

    answer: Answer
    split: int  # inferences at a time that images are divided for; see `open_onnx`


class EnginesDiffer(EdgekitError):
    """The quick engine's answers differ from the trusted one's."""

    def __init__(self, message: str, trusted: Predictor) -> None:
        super().__init__(message)
        self.trusted = trusted


class CheckedPredictor:
    """A trusted engine, and a quick one that may answer for it as long as they agree."""

    def __init__(
        self,
        trusted: Predictor,
        quick_name: str,
        quick_key: str,
        open_quick: Callable[[], Quick],
        worth: float = WORTH,
        reopen: Callable[[Decision], Predictor] | None = None,
    ) -> None:
        self.trusted = trusted
        self.preprocessing = trusted.preprocessing
        self.classes = trusted.classes
        self.source = trusted.source
        self.training = trusted.training
        # Both engines' answers are cached under one key: they are equal, or are not used.
        self.key = f"{trusted.key} or {quick_key}"
        self._quick_name = quick_name
        self._open_quick = open_quick
        self._worth = worth
        self._reopen = reopen
        self._quick: Quick | None = None
        self._note = "no float inference was needed"
        self._started = self._chosen = False
        self._seconds = [0.0, 0.0]  # of processors: trusted, quick
        self._timed = self._checked = self._ties = self._answered = self._calls = 0
        self._largest_margin = 0.0

    @property
    def name(self) -> str:
        """What reports call it; `report` says which engine answered."""
        return self.trusted.name

    @property
    def report(self) -> EngineReport:
        """Which engine answered so far, and the checks."""
        quick = self._chosen and self._quick is not None
        trusted, other = self._seconds
        return EngineReport(
            self._quick_name if quick else self.trusted.name,
            self.trusted.name if quick else None,
            self._answered,
            self._checked,
            self._ties,
            other / trusted if trusted and other else None,
            self._note,
        )

    @property
    def decided(self) -> bool:
        """Whether it is settled which engine answers from now on."""
        return self._started and (self._chosen or self._quick is None)

    @property
    def opener(self) -> Opener | None:
        """Opens a copy of it, with the engine that it decided for."""
        if self._reopen is None:
            return None
        split = 0 if self._quick is None else self._quick.split
        return partial(self._reopen, Decision(split, self._largest_margin))

    def settle(self, decision: Decision) -> None:
        """Take over the decision of another process."""
        self._started = self._chosen = True
        self._largest_margin = decision.largest_margin
        self._quick = self._open_quick() if decision.split else None

    @property
    def turn(self) -> int:
        """The number of its next call; it says which answers are checked."""
        return self._calls

    def run_turn(self, images: NDArray[np.uint8], turn: int) -> tuple[Answers, Checks]:
        """`run`, as call number ``turn`` would, and what that adds to the report."""
        self._calls = turn
        before = self._answered, self._checked, self._ties
        answers = self.run(images)
        after = self._answered, self._checked, self._ties
        return answers, Checks(*(b - a for a, b in zip(before, after, strict=True)))

    def add(self, checks: Checks) -> None:
        """Count a call that a copy answered."""
        self._calls += 1
        self._answered += checks.answered
        self._checked += checks.checked
        self._ties += checks.ties

    def refuse(self, message: str) -> NoReturn:
        """Give up the quick engine, here or in a copy, because of a difference."""
        self._quick, self._answered, self._note = None, 0, f"{message}; not used"
        raise EnginesDiffer(message, self.trusted)

    def run(self, images: NDArray[np.uint8]) -> Answers:
        """Raises `EnginesDiffer` if the quick engine turns out not to be equal."""
        if not self._started:
            self._start(images[:1])
        if self._quick is None:
            return self.trusted.run(images)
        if not self._chosen:
            return self._both(images)
        answers = self._quick.answer(images)
        # Different rows each time, so all variants get checked.
        rows = np.arange(self._calls % SHARE, len(images), SHARE)
        self._calls += 1
        if len(rows):
            self._check(self.trusted.run(images[rows]), select_rows(answers, rows))
        self._answered += len(images) - len(rows)
        return answers

    def _start(self, image: NDArray[np.uint8]) -> None:
        """Open the quick engine and warm up both."""
        self._started = True
        try:
            self._quick = self._open_quick()
            self._quick.answer(image)
        except (RuntimeError, EdgekitError) as error:
            self._quick = None
            reason = one_line(error)
            self._note = f"{self._quick_name} cannot run the float model: {reason}"
            return
        self.trusted.run(image)

    def _both(self, images: NDArray[np.uint8]) -> Answers:
        """The trusted engine's answers; after enough of them, choose the cheaper engine."""
        assert self._quick is not None
        start = time.process_time()
        answers = self.trusted.run(images)
        middle = time.process_time()
        others = self._quick.answer(images)
        self._seconds[0] += middle - start
        self._seconds[1] += time.process_time() - middle
        self._check(answers, others)
        self._timed += len(images)
        if self._timed >= FIRST:
            self._chosen = True
            cost = self._seconds[1] / max(self._seconds[0], 1e-9)
            if cost > self._worth:
                self._quick = None  # which frees its memory
                self._note = (
                    f"{self._quick_name} agrees on the first {self._timed} answers, but takes "
                    f"{cost:.2f} of the processor time: not used"
                )
            else:
                self._note = (
                    f"{self._quick_name} takes {cost:.2f} of the processor time; it agrees on the "
                    f"first {self._timed} answers and on one in {SHARE} of the others"
                )
        return answers

    def _check(self, trusted: Answers, quick: Answers) -> None:
        if trusted.margin is not None and trusted.margin.size:
            finite = trusted.margin[np.isfinite(trusted.margin)]
            self._largest_margin = max(self._largest_margin, float(finite.max(initial=0)))
        self._checked += len(trusted.logits)
        agreement = compare_engines(trusted, quick, self._largest_margin)
        self._ties += agreement.ties
        if agreement.difference:
            message = (
                f"{self._quick_name} does not agree with '{self.trusted.name}': "
                f"{agreement.difference}"
            )
            self.refuse(message)


class Decision(NamedTuple):
    """Which engine answers, for a copy in another process."""

    split: int  # as in `Quick`; 0 if the trusted engine answers
    largest_margin: float  # so far


@dataclass(frozen=True)
class EngineAgreement:
    """How two engines' answers to the same images compare."""

    ties: int  # images that rounding decided differently
    difference: str  # what rounding does not explain, in words; "" if nothing


def compare_engines(trusted: Answers, quick: Answers, largest_margin: float) -> EngineAgreement:
    """Whether two engines agree; ``largest_margin`` is the scale for ties between codes."""
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(trusted.logits).all(axis=1))
    if not np.array_equal(finite, np.isfinite(quick.logits).all(axis=1)):
        return EngineAgreement(0, "logits are infinite or NaN in one of them only")
    tied = np.zeros(len(finite), np.bool_)
    if (trusted.code is None) != (quick.code is None):
        return EngineAgreement(0, "one of them has no codes")
    if trusted.code is not None and quick.code is not None:
        changed = trusted.code != quick.code
        margin = np.inf if trusted.margin is None else trusted.margin
        beyond = changed & ~(margin <= _TIE_MARGIN * largest_margin)
        if beyond.any():
            return EngineAgreement(0, f"{int(beyond.sum())} of {beyond.size} codes differ")
        # Another codeword gives other logits.
        tied = changed.reshape(len(changed), -1).any(axis=1)
    same = finite & ~tied
    ours, theirs = trusted.logits[same], quick.logits[same]
    if not len(ours):
        return EngineAgreement(int(tied.sum()), "")
    largest = np.abs(ours).max(axis=1)
    off = float((np.abs(ours - theirs).max(axis=1) / np.maximum(largest, 1e-30)).max())
    if off > _LOGITS:
        return EngineAgreement(0, f"logits differ by {off:.1e} of the largest")
    rows = np.arange(len(ours))
    top = theirs.argmax(axis=1)
    gap = ours.max(axis=1) - ours[rows, top]
    wrong = gap > _TIE_LOGITS * largest
    if wrong.any():
        return EngineAgreement(0, f"{int(wrong.sum())} of {len(wrong)} top-1 classes differ")
    moved = top != ours.argmax(axis=1)
    return EngineAgreement(int(tied.sum() + moved.sum()), "")


def select_rows(answers: Answers, rows: NDArray[np.intp]) -> Answers:
    """Some rows of the answers."""
    return Answers(
        answers.logits[rows],
        None if answers.code is None else answers.code[rows],
        None if answers.margin is None else answers.margin[rows],
    )


def open_reference(
    path: Path, splits: tuple[int, int] = (0, 0)
) -> OnnxPredictor | CheckedPredictor:
    """A float ONNX file from `edgekit export`, in the engine that turns out to be fastest.

    ``splits`` are those of ONNX Runtime and OpenVINO in the process that this one helps.
    """
    trusted, split = open_onnx(path, split=splits[0]), splits[1]
    if importlib.util.find_spec("openvino") is None:
        return trusted
    import openvino

    version = openvino.get_version().split("-")[0]
    return CheckedPredictor(
        trusted,
        "OpenVINO",
        f"openvino {version} f32",
        lambda: _open_openvino(path, trusted.preprocessing, split),
        reopen=partial(_open_copy, path.absolute(), trusted.split),
    )


def _open_copy(path: Path, trusted_split: int, decision: Decision) -> Predictor:
    """The same reference in another process, which does not decide again."""
    model = open_reference(path, (trusted_split, decision.split))
    if isinstance(model, CheckedPredictor):  # else OpenVINO is missing here, and the key tells
        model.settle(decision)
    return model


def _open_openvino(path: Path, preprocessing: Preprocessing, split: int) -> Quick:
    """The float graph under OpenVINO in f32, with our own exact lookup if it is installed."""
    from edgekit.graph.variants import to_variant

    try:
        plugins = [extension_path()]
    except ToolchainMissing:
        plugins = []
    graph = onnx.load(path)
    core = shared_core(plugins)
    model = core.read_model(
        to_variant(graph, "function" if plugins else "inline").SerializeToString()
    )
    # Without the hint OpenVINO computes in bf16 where it can, and codes flip.
    settings = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"}
    if threads := runtime_threads(0):
        settings["INFERENCE_NUM_THREADS"] = str(threads)
    compiled = core.compile_model(model, "CPU", settings)
    names = [output.get_any_name() for output in compiled.outputs]
    streams = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
    requests = [compiled.create_infer_request() for _ in range(streams)]

    def answer(images: NDArray[np.uint8]) -> Answers:
        parts: list[Answers] = []

        def finish_next() -> None:
            request = requests[len(parts) % streams]
            request.wait()
            tensors = (request.get_output_tensor(place) for place in range(len(names)))
            outputs = dict(zip(names, (tensor.data.copy() for tensor in tensors), strict=True))
            parts.append(Answers(outputs["logits"], outputs.get("code"), outputs.get("margin")))

        pieces = np.array_split(images, shares(len(images), _CHUNK, split or streams))
        for number, piece in enumerate(pieces):
            if number >= streams:
                finish_next()
            requests[number % streams].start_async({0: preprocessing.normalize(piece)})
        while len(parts) < len(pieces):
            finish_next()
        return join(parts)

    return Quick(answer, split or streams)
