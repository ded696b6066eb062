"""Whether both models look up the same codewords, and how near to a border they are."""

from __future__ import annotations

from edgekit.parity.document import CodeAgreement, MarginHistogram, ParityDocument
from edgekit.report.figures.margins import margins
from edgekit.report.figures.shares import shares
from edgekit.report.markup import beside, paragraph, section, table


def codes(parity: ParityDocument | None) -> str:
    """The section; nothing without codes to compare."""
    if parity is None or parity.codes is None:
        return ""
    found = parity.codes
    same = found.corrupted_agreement
    rows = [
        ["same code, clean", f"{found.clean_agreement:.2%}", ""],
        [
            "same code, corrupted",
            f"{same.estimate:.2%}",
            f"[{same.lower:.2%}, {same.upper:.2%}]",
        ],
    ]
    classes = {} if parity.top1_agreement is None else parity.top1_agreement.per_corruption
    figures = []
    if found.per_corruption:
        figures.append(shares(classes, found.per_corruption, parity.gates.min_code_agreement))
    if found.margins is not None:
        figures.append(margins(found.margins))
    return section(
        "Codes" if parity.judged == "model" else "Codes of the graph",
        table(("", "candidate", "95% interval"), rows),
        *(paragraph(line) for line in _usage(found)),
        *(paragraph(line) for line in _border(found)),
        beside(*figures),
    )


def _usage(found: CodeAgreement) -> list[str]:
    models = (("reference", found.usage.reference), ("candidate", found.usage.candidate))
    uses = (
        f"the {name} uses {usage.used} of {usage.size} codewords, perplexity {usage.perplexity:.1f}"
        for name, usage in models
    )
    text = f"Of the codebook, {'; '.join(uses)}."
    if any(4 * usage.used < usage.size for _, usage in models):
        text += " Most codewords are idle: agreement on so few of them says little."
    return [text]


def _border(found: CodeAgreement) -> list[str]:
    """How many lookups are as near to a border as half of those that flipped."""
    if found.margins is None:
        return []
    middle = found.margins.median(found.margins.flipped)
    if middle is None:
        return ["No code flipped."]
    text = f"Half of the codes that flipped had a margin of up to {middle:.2g}"
    if found.margins.histogram is None:
        return [f"{text}."]
    near, flipped = _below(found.margins.histogram, middle)
    calls = found.margins.histogram
    total = sum(calls.agreeing) + sum(calls.flipped)
    rest, beyond = total - near, sum(calls.flipped) - flipped
    text += (
        f"; {near:,} of all {total:,} lookups ({near / total:.1%}) are that near to a border, and "
        f"{flipped / near:.1%} of them flipped"
    )
    return [text + (f", against {beyond / rest:.1%} of the others." if rest else ".")]


def _below(calls: MarginHistogram, margin: float) -> tuple[int, int]:
    """Lookups in the bins up to the one that ``margin`` begins; and those of them that flipped."""
    inside = [index for index, edge in enumerate(calls.edges[:-1]) if edge <= margin]
    flipped = sum(calls.flipped[index] for index in inside)
    return max(1, flipped + sum(calls.agreeing[index] for index in inside)), flipped
