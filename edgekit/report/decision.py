"""What a bundle's evidence says to somebody who must decide: ship it, do not, or not yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgekit.bundle.engine import engine_pending
from edgekit.bundle.manifest import Manifest
from edgekit.parity.document import MeanError, ParityDocument, Subject
from edgekit.report.figures.svg import signed
from edgekit.report.parity_table import looks_line

Kind = Literal["ship", "stop", "open"]


@dataclass(frozen=True)
class Decision:
    """The headline, and the sentences that give its reasons."""

    kind: Kind
    words: str
    why: tuple[str, ...]

    @property
    def mark(self) -> str:
        """A sign for it, besides its color and words."""
        return {"ship": "\N{CHECK MARK}", "stop": "\N{BALLOT X}", "open": "?"}[self.kind]


def decide(
    manifest: Manifest, parity: ParityDocument | None, graph: ParityDocument | None = None
) -> Decision:
    """The decision of parity's verdict; without one, nothing is decided.

    ``graph`` is the comparison of a pending engine's graph: it can only warn. Here such a bundle
    stays pending after a device has built its engine and ``parity`` was measured there.
    """
    if parity is None and engine_pending(manifest):
        return _of_pending(graph)
    if parity is None:
        why = "Robustness was not measured: run 'edgekit parity' on the bundle."
        return Decision("open", "Not decided yet (robustness not measured)", (why,))
    return Decision(*_of_verdict(parity), why=_reasons(parity))


def _of_pending(graph: ParityDocument | None) -> Decision:
    """What the graph says before there is an engine."""
    unseen = "What ships is the engine that TensorRT builds on the device; nobody has seen it."
    if graph is None:
        return Decision("open", "Not decided yet (its engine is not built)", (unseen,))
    where = "The graph that the engine is built from, in TensorRT's dialect and run by ONNX Runtime"
    if graph.verdict == "fail":
        words = "Do not ship (the graph has lost robustness before any engine is built)"
        return Decision("stop", words, (f"{where}, fails.", *_reasons(graph)))
    said = {"pass": "passes", "undecided": "is undecided", "unlabeled": "has no labels to judge by"}
    return Decision(
        "open",
        "Not decided yet (its engine is not built)",
        (unseen, f"{where}, {said[graph.verdict]}.", *_reasons(graph)),
    )


def _of_verdict(parity: ParityDocument) -> tuple[Kind, str]:
    if parity.verdict == "pass":
        return "ship", "Ship"
    if parity.verdict == "fail":
        return "stop", "Do not ship"
    if parity.verdict == "unlabeled":
        return "open", "Not decided yet (no labels)"
    if parity.more_images is None:
        return "open", "Not decided yet (no number of images would decide)"
    return "open", f"Not decided yet ({parity.more_images:,} more images)"


def _reasons(parity: ParityDocument) -> tuple[str, ...]:
    """Parity's reasons; that of the mean error in plainer words."""
    looks = (f"{looks_line(parity).capitalize()}.",) if parity.looks > 1 else ()
    error = parity.corruption_error
    if error is None:
        return (*parity.reasons, *looks)
    mean = f"{parity.verdict}: \N{GREEK CAPITAL LETTER DELTA}"
    others = (reason for reason in parity.reasons if not reason.startswith(mean))
    return (_in_words(error, parity.gates.tolerance, parity.judged), *others, *looks)


def _in_words(error: MeanError, tolerance: float, judged: Subject) -> str:
    what = "The corruption error" if judged == "model" else "The graph's corruption error"
    sure, allowed = f"with {error.confidence:.0%} certainty", f"{tolerance:g} points are allowed"
    if error.upper <= tolerance:
        most = f"at most {error.upper:.2f} points" if error.upper > 0 else "not"
        return f"{what} is {most} above the reference's, {sure}; {allowed}."
    if error.lower > tolerance:
        return (
            f"{what} is at least {error.lower:.2f} points above the reference's, {sure}; {allowed}."
        )
    return (
        f"{what} changed by {signed(error.lower)} to {signed(error.upper)} points, "
        f"{sure}; {allowed}, which lies between."
    )
