"""The self-test of a bundle: one comparison with stored answers, for every runtime.

``python -m edgekit.runtime.selftest BUNDLE`` is what a deploy runs on the device.

``selftest.npz`` (edgekit.bundle.selftest) holds the answers of ONNX Runtime, computed from the
deployed graph in float arithmetic exactly as its quantize and dequantize nodes say, and, where the
building machine could run the bundle, the bundle's own. Two runtimes round the same INT8 graph
differently, and the difference grows from layer to layer: the same release on the same kind of CPU
is therefore compared closely with the bundle's own answers, any other with the reference, as
closely as two runtimes agreed when the bundle was built. Runs on devices: imports nothing heavy.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.selftest import SELFTEST, OldTest, SelfTest, StoredAnswers, read_self_test
from edgekit.bundle.store import Bundle, open_bundle
from edgekit.core.errors import EdgekitError, UsageError
from edgekit.core.host import host_arch
from edgekit.core.npz import NpzError
from edgekit.data.synthetic import pictures
from edgekit.runtime.answers import Answers, join
from edgekit.runtime.model import Model, load
from edgekit.targets.descriptor import host_isa

_CHUNK: Final = 8  # images per inference
_PICTURES: Final = 8  # synthetic ones, run twice
_REPEATS: Final = 1e-3  # of the largest logit: sums may be in another order
# Noise is measured in units of how far the images' logits differ (see `_scale`). The same
# release on the same kind of CPU gave equal answers with either hint, 1 and 2 threads and batches
# of 1 and 8; the least of the planted faults of docs/bundle-format.md is almost eight times this.
_SAME_RUNTIME: Final = 0.01
# Two runtimes of a float graph agree to 1e-5, of an INT8 graph to 0.14 to 0.25. Where they differed
# by more than the upper bound, the answers could not show anything.
_LEAST_NOISE, _MOST_NOISE = 0.03, 0.35
_LEAST_MEASURED: Final = 1e-6  # float32 itself
_LEAST_MARGIN: Final = 0.01  # of a margin: float graphs agree better
_LOGITS: Final = 2.0  # times the noise: how far logits may differ, over all images
_CLASS: Final = 2.5  # and those of any single class
_CLEAR: Final = 4.0  # times the noise: a lead that rounding does not reverse
_GAIN: Final = 0.6  # times the noise: how much larger all logits may be, but at least a tenth
_DETECTABLE: Final = 1.0  # times the noise: the effect from which a known fault is looked for
_OLD_TOLERANCE: Final = 0.1  # of the largest logit; the first schema's 4 or 8 images show no more


@dataclass(frozen=True)
class SelfTestReport:
    """How answers compare with the stored ones; any ``problems`` mean they are another model's."""

    images: int
    against: str  # whose answers they are compared with
    logits_error: float  # largest difference over the largest magnitude
    logits_rms: float | None  # root mean square difference, in units of `_scale`
    logits_allowed: float
    top1_equal: int
    top1_clear: int  # images whose best class leads by more than rounding
    codes: int
    codes_equal: int
    codes_clear: int
    problems: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether both compute the same, up to the rounding of their runtimes."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**dataclasses.asdict(self), "problems": list(self.problems)}

    def describe(self) -> str:
        """One line for the user."""
        text = f"self-test of {self.images} images against {self.against}: "
        if self.logits_rms is None:
            text += f"logits differ by {self.logits_error:.2%} of their largest"
        else:
            text += f"logits differ by {self.logits_rms:.3f} (at most {self.logits_allowed:.3f})"
        text += f", top-1 equal in {self.top1_equal}"
        if self.codes:
            text += f", {self.codes_equal} of {self.codes} codes equal"
        return text + "".join(f"; {problem}" for problem in self.problems)


def where_it_runs(description: Mapping[str, str | int]) -> str:
    """The runtime, its device and the kind of CPU: if all are equal, so are the answers."""
    runtime, device = str(description["runtime"]), str(description["device"])
    return " ".join([runtime, "on", device, host_arch(), *host_isa()])


@dataclass(frozen=True)
class Proof:
    """The result of the self-test, before a bundle is measured or left on a device."""

    images: int  # synthetic ones, run twice
    spread: float  # largest difference between the two runs, over the largest logit
    stored: SelfTestReport | None  # None without stored answers

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "images": self.images,
            "repeatable": self.spread == 0.0,
            "spread": self.spread,
            "stored": None if self.stored is None else self.stored.to_dict(),
        }

    def describe(self) -> str:
        """One line for the user."""
        text = f"self-test: {self.images} synthetic images, finite and repeatable"
        return text if self.stored is None else f"{text}; {self.stored.describe()}"


def prove(model: Model, bundle: Bundle) -> Proof:
    """Check that the bundle computes what it should; an error of one line if not.

    Synthetic pictures go through it twice: answers must be finite and equal, with codes that exist.
    Then the bundle's stored answers must come out.
    """
    name = bundle.path
    images = pictures(_PICTURES, model.size)
    first, second = model.run(images), model.run(images)
    if not np.isfinite(first.logits).all():
        raise EdgekitError(f"{name} fails its self-test: its logits are not finite")
    equal_codes = True
    if first.code is not None and second.code is not None:
        equal_codes = bool(np.array_equal(first.code, second.code))
        rows = int(model.manifest.model.get("vqsa", {}).get("codebook_size", 0))
        if first.code.min() < 0 or (rows and first.code.max() >= rows):
            raise EdgekitError(
                f"{name} fails its self-test: it chose codes that are not in its codebook"
            )
    spread = float(np.abs(first.logits - second.logits).max())
    spread /= max(float(np.abs(first.logits).max()), 1e-30)
    if not equal_codes or spread > _REPEATS:
        raise EdgekitError(
            f"{name} fails its self-test: the same {_PICTURES} images got different answers "
            f"in two runs (logits differ by {spread:.1%} of their largest)"
        )
    report = check_stored_answers(model, bundle)
    if report is not None and not report.passed:
        raise EdgekitError(
            f"{name} fails its self-test against {SELFTEST}: {report.describe()}; it does not "
            "compute here what it did where it was built: build it again for this device"
        )
    return Proof(_PICTURES, spread, report)


def check_stored_answers(model: Model, bundle: Bundle) -> SelfTestReport | None:
    """Run the stored images through an opened bundle; None if it has none."""
    if SELFTEST not in bundle.manifest.files:
        return None
    test = read_self_test(bundle.folder / SELFTEST, model.size)
    if isinstance(test, OldTest):
        return _check_old_answers(test, model.run(test.images))
    return check_answers(test, ask(test, model.run, model.size), where_it_runs(model.describe()))


def ask(
    test: SelfTest, run: Callable[[NDArray[np.uint8]], Answers], size: tuple[int, int]
) -> Answers:
    """A model's answers to the stored images; only a few are unpacked at a time."""
    starts = range(0, len(test.images), _CHUNK)
    return join([run(test.pixels(size, start, start + _CHUNK)) for start in starts])


def stored_part(
    raw: Answers, columns: NDArray[np.int64], positions: NDArray[np.int64]
) -> StoredAnswers:
    """The part of a model's answers that a test stores and compares."""
    logits = raw.logits.astype(np.float32)
    top = np.sort(logits, axis=1)[:, -2:]
    count = len(logits)

    def some(values: NDArray[Any] | None) -> NDArray[Any] | None:
        return None if values is None else values.reshape(count, -1)[:, positions]

    return StoredAnswers(
        logits[:, columns],
        logits.argmax(axis=1).astype(np.int64),
        top[:, -1] - top[:, 0],
        some(raw.code),
        some(raw.margin),
    )


def check_answers(test: SelfTest, raw: Answers, where: str) -> SelfTestReport:
    """Compare answers with the bundle's own where those apply, else with the reference."""
    same = test.own is not None and where == test.where
    expected = test.own if same and test.own is not None else test.reference
    against = "its own answers where it was built" if same else "ONNX Runtime's answers"
    _check_shapes(test, expected, raw)
    noise = _SAME_RUNTIME if same else min(max(test.noise, _LEAST_NOISE), _MOST_NOISE)
    # The margins' noise scales with that of the logits, since both come from the features.
    margins = test.margin_noise * noise / max(test.noise, _LEAST_MEASURED)
    if expected.margin is not None:
        finite = expected.margin[np.isfinite(expected.margin)]
        margins = max(margins, _LEAST_MARGIN * _rms(finite))
    return _compare(test, expected, raw, noise, margins, against)


def _compare(
    test: SelfTest,
    expected: StoredAnswers,
    raw: Answers,
    noise: float,
    margin_noise: float,
    against: str,
) -> SelfTestReport:
    """The comparison itself: anything that rounding of ``noise`` cannot explain is a problem."""
    answers = stored_part(raw, test.columns, test.positions)
    problems: list[str] = []
    same_codes = np.ones(len(test.images), np.bool_)  # images whose codes are equal
    equal = clear = total = 0
    if expected.code is not None and answers.code is not None:
        same = answers.code == expected.code
        certain = np.ones_like(same)
        if expected.margin is not None:
            certain = expected.margin > _CLEAR * margin_noise
        same_codes = same.all(axis=1)
        equal, clear, total = int(same.sum()), int(certain.sum()), same.size
        if (wrong := int((certain & ~same).sum())) > clear // 100:
            problems.append(f"{wrong} of {clear} codes that rounding cannot change differ")
    finite = bool(np.isfinite(raw.logits).all())
    if not finite:
        problems.append("logits are not finite")
    scale = _scale(expected.logits)
    difference = answers.logits.astype(np.float64) - expected.logits
    largest = max(float(np.abs(expected.logits).max(initial=0)), 1e-30)
    error = float(np.abs(difference).max(initial=0)) / largest if finite else float("inf")
    # Where codes differ, so must logits; codes were checked above.
    rows = same_codes if same_codes.any() else np.ones_like(same_codes)
    certain_best = rows & (expected.lead > _CLEAR * noise * scale)
    best = answers.best == expected.best
    if (wrong := int((certain_best & ~best).sum())) > 0:
        problems.append(f"{wrong} top-1 answers that rounding cannot change differ")
    rms = float("inf")
    if finite and (same_codes.any() or not problems):
        rms = _rms(difference[rows]) / scale
        problems += _logit_problems(test, expected, difference[rows], rows, noise, scale)
    if expected.margin is not None and answers.margin is not None and same_codes.any():
        problems += _margin_problem(
            expected.margin[same_codes], answers.margin[same_codes], margin_noise
        )
    return SelfTestReport(
        images=len(test.images),
        against=against,
        logits_error=error,
        logits_rms=rms,
        logits_allowed=_LOGITS * noise,
        top1_equal=int(best.sum()),
        top1_clear=int(certain_best.sum()),
        codes=total,
        codes_equal=equal,
        codes_clear=clear,
        problems=tuple(problems),
    )


def _logit_problems(
    test: SelfTest,
    expected: StoredAnswers,
    difference: NDArray[np.float64],
    rows: NDArray[np.bool_],
    noise: float,
    scale: float,
) -> list[str]:
    problems = []
    if (rms := _rms(difference) / scale) > _LOGITS * noise:
        problems.append(f"logits differ by {rms:.3f}, rounding explains {_LOGITS * noise:.3f}")
    by_class = np.sqrt(np.square(difference).mean(axis=0)) / scale
    if by_class.max(initial=0) > _CLASS * noise:
        name = int(test.columns[by_class.argmax()])
        problems.append(f"those of class {name} by {by_class.max():.3f}")
    centered = expected.logits[rows] - expected.logits[rows].mean(axis=0)
    gain = _share(difference, centered)
    if abs(gain) > max(0.1, _GAIN * noise):
        problems.append(f"logits are {1 + gain:.2f} times what they should be")
    for effect, what in (
        (test.brighter[rows], "images seem to arrive with another brightness (a wrong mean?)"),
        (test.swapped[rows], "red and blue seem to be swapped"),
    ):
        detectable = _rms(effect) > _DETECTABLE * noise * scale
        if detectable and abs(_share(difference, effect)) > 0.5:
            problems.append(what)
    return problems


def _margin_problem(
    expected: NDArray[np.float32], margins: NDArray[np.float32], noise: float
) -> list[str]:
    finite = np.isfinite(expected) & np.isfinite(margins)  # with one codeword there is no second
    error = _rms(margins[finite].astype(np.float64) - expected[finite])
    if error > _LOGITS * noise:
        return [f"margins differ by {error:.3g}, rounding explains {_LOGITS * noise:.3g}"]
    return []


def _check_old_answers(test: OldTest, raw: Answers) -> SelfTestReport:
    """The comparison of the first schema."""
    problems = []
    if raw.logits.shape != test.logits.shape:
        shape, other = list(raw.logits.shape), list(test.logits.shape)
        raise NpzError(f"{SELFTEST} is for logits {other}, the model gives {shape}: build it again")
    difference = np.abs(raw.logits - test.logits.astype(np.float64))
    scale = max(float(np.abs(test.logits).max(initial=0)), 1e-30)
    error = float(difference.max(initial=0)) / scale
    if not error <= _OLD_TOLERANCE:  # nor NaN
        problems.append(f"rounding explains at most {_OLD_TOLERANCE:.0%}")
    codes = test.code
    equal = 0 if codes is None or raw.code is None else int((codes == raw.code).sum())
    return SelfTestReport(
        images=len(test.images),
        against="stored answers of an older edgekit (few: build again for a stronger test)",
        logits_error=error,
        logits_rms=None,
        logits_allowed=_OLD_TOLERANCE,
        top1_equal=int((test.logits.argmax(axis=1) == raw.logits.argmax(axis=1)).sum()),
        top1_clear=0,
        codes=0 if codes is None else codes.size,
        codes_equal=equal,
        codes_clear=0,
        problems=tuple(problems),
    )


def measured_noise(a: StoredAnswers, b: StoredAnswers) -> tuple[float, float]:
    """How much two runtimes differ: logits where codes agree, in units of `_scale`, and margins."""
    same_codes = np.ones(len(a.logits), np.bool_)
    if a.code is not None and b.code is not None:
        same_codes = (a.code == b.code).all(axis=1)
    if not same_codes.any():
        return float("inf"), float("inf")
    logits = _rms(b.logits[same_codes].astype(np.float64) - a.logits[same_codes]) / _scale(a.logits)
    if a.margin is None or b.margin is None:
        return logits, 0.0
    finite = np.isfinite(a.margin) & np.isfinite(b.margin) & same_codes[:, np.newaxis]
    return logits, _rms(b.margin[finite].astype(np.float64) - a.margin[finite])


def _scale(logits: NDArray[np.float32]) -> float:
    """How far images' logits differ: their root mean square around the classes' means.

    Faults and rounding are both measured against that; what all images share would hide them.
    """
    return max(_rms(logits - logits.mean(axis=0, dtype=np.float64)), 1e-30)


def _rms(values: NDArray[Any]) -> float:
    return float(np.sqrt(np.square(values, dtype=np.float64).mean())) if values.size else 0.0


def _share(difference: NDArray[Any], effect: NDArray[Any]) -> float:
    """How much of ``effect`` is in ``difference``: 1 for all of it, about 0 in noise."""
    energy = float(np.square(effect, dtype=np.float64).sum())
    return float((difference * effect).sum(dtype=np.float64)) / energy if energy > 0 else 0.0


def _check_shapes(test: SelfTest, expected: StoredAnswers, raw: Answers) -> None:
    if raw.logits.shape != (len(test.images), test.classes):
        raise NpzError(
            f"{SELFTEST} is for {test.classes} classes, the model gives logits "
            f"{list(raw.logits.shape)}: build the bundle again"
        )
    width = 0 if raw.code is None else raw.code.reshape(len(test.images), -1).shape[1]
    stored = expected.code is not None
    if stored != (raw.code is not None) or (stored and test.positions.max(initial=0) >= width):
        raise NpzError(f"{SELFTEST} is for a model with another codebook: build the bundle again")


def main(arguments: list[str]) -> int:
    """Test one bundle and print one line; the exit code."""
    try:
        if len(arguments) != 1:
            raise UsageError("usage: python -m edgekit.runtime.selftest BUNDLE")
        path = Path(arguments[0])
        print(prove(load(path), open_bundle(path)).describe())
    except EdgekitError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
