"""What the bundle is: model, size, classes, protocol, calibration; and where it comes from."""

from __future__ import annotations

from typing import Final

from edgekit.bundle.build_record import build_record
from edgekit.bundle.manifest import FIELD, Manifest
from edgekit.bundle.store import Bundle
from edgekit.core.documents import part
from edgekit.data.corruptions import BENCHMARK15
from edgekit.parity.document import ParityDocument
from edgekit.parity.examples import EXAMPLES
from edgekit.quantize.results import Closeness
from edgekit.report.calibration import read_calibration
from edgekit.report.figures.sizes import sizes as sizes_figure
from edgekit.report.markup import escaped, facts, folded, section, table
from edgekit.report.model_facts import ModelFacts
from edgekit.report.sizes import Sizes, megabytes

_MOST_CLASSES: Final = 20
_DOCUMENTS: Final = (
    *("parity.json", "graph-parity.json", EXAMPLES),
    *("bench.json", "calibration.json", FIELD),
)


def model_section(
    bundle: Bundle, model: ModelFacts, sizes: Sizes, parity: ParityDocument | None
) -> str:
    """The section; every bundle has it."""
    manifest = bundle.manifest
    head = model.vqsa
    codebook = ""
    if head.has_codebook:
        codebook = f"{head.codebook_size} codewords, {head.quantize}, output: {head.output}"
    record = build_record(manifest, str(bundle.path))
    split = "" if record.data is None else f"{record.data}, split with seed {record.seed}"
    calibration = read_calibration(bundle)
    order = sorted(sizes.files.items(), key=lambda item: -item[1])
    return section(
        "Model",
        facts(
            [
                ("architecture", model.backbone),
                ("from", model.origin),
                ("codebook", codebook),
                ("images", f"{manifest.input.height} x {manifest.input.width} px, uint8 RGB"),
                ("classes", _classes(bundle.labels)),
                ("corruptions in training", _seen(model, parity)),
                ("trained on", model.training.data or ""),
                ("training", model.training.note or ""),
                ("data of the build", split),
                ("compared on", "" if parity is None else f"{parity.data}, seed {parity.seed}"),
                ("precision", manifest.target.precision),
                ("calibration", "" if calibration is None else calibration.describe()),
                ("check of the build", _guard(manifest, str(bundle.path))),
            ]
        ),
        "" if sizes.reference is None else sizes_figure(sizes.needed, sizes.reference),
        folded(
            f"Files, {megabytes(sum(sizes.files.values()))} in all without this page",
            table(
                ("file", "size", "needed to run"),
                [
                    [name, megabytes(size), "yes" if manifest.is_essential(name) else "no"]
                    for name, size in order
                ],
            ),
        ),
    )


def provenance(manifest: Manifest, *, inside: bool) -> str:
    """Hashes, versions and the command to build it again, folded away."""
    source = manifest.source
    runtime = manifest.runtime
    rows = [
        ("built with", manifest.rebuild_line()),  # no date: equal builds have equal reports
        ("runtime", f"{runtime.name} {runtime.version} ({runtime.match})"),
        ("tools", ", ".join(f"{name} {text}" for name, text in manifest.versions.items())),
        ("checkpoint", source.checkpoint or "not recorded"),
        ("calibration images", source.calibration_images or "none"),
        ("recipe", source.recipe or "none"),
        ("identity", manifest.identity()),
    ]
    names = [name for name in _DOCUMENTS if name in manifest.files] + ["manifest.json"]
    hashes = [[name, manifest.files[name].sha256] for name in names if name in manifest.files]
    links = ""
    if inside:
        links = (
            "<p>Documents: "
            + ", ".join(f'<a href="{escaped(name)}">{escaped(name)}</a>' for name in names)
            + "</p>"
        )
    return section(
        "Provenance",
        folded(
            "Hashes, versions and how to build it again",
            facts(rows),
            links,
            table(("document", "SHA-256"), hashes) if hashes else "",
        ),
    )


def _classes(labels: tuple[str, ...]) -> str:
    shown = ", ".join(labels[:_MOST_CLASSES])
    more = len(labels) - _MOST_CLASSES
    return f"{len(labels)}: {shown}" + (f" and {more} more" if more > 0 else "")


def _seen(model: ModelFacts, parity: ParityDocument | None) -> str:
    """The training's corruptions, and how many of the comparison's are among them."""
    seen = model.training.seen
    if seen is None:
        return f"unknown ({model.training.describe_seen()})"
    names = ", ".join(seen).replace("_", " ") if seen != BENCHMARK15 else "the benchmark's 15"
    text = f"{names or 'none'} ({model.training.describe_seen()})"
    if parity is None:
        return text
    met = sum(name in seen for name in parity.corruptions)
    return f"{text}; {met} of the {len(parity.corruptions)} in the comparison"


def _guard(manifest: Manifest, source: str) -> str:
    section = manifest.sections.get("guard")
    if section is None:
        return ""
    return part(Closeness, section, f"{source}: its manifest's section 'guard'").describe()
