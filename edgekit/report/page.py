"""One HTML page about a bundle: the decision, what it rests on, and what was not measured.

The page is self-contained: no scripts, fonts or images from elsewhere. Everything from the bundle's
files is escaped, because they are as untrusted as the bundle.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from edgekit.bench.document import read_bench, read_summary
from edgekit.bundle.store import Bundle, open_bundle, update_bundle
from edgekit.core.documents import Document
from edgekit.core.errors import UsageError
from edgekit.core.files import write_text
from edgekit.field.history import FieldAgainstLab
from edgekit.parity.document import read_graph_parity, read_parity
from edgekit.parity.examples import EXAMPLES, read_examples
from edgekit.report.decision import decide
from edgekit.report.markup import whole_page
from edgekit.report.model_facts import model_facts
from edgekit.report.sections.banner import banner
from edgekit.report.sections.codes import codes
from edgekit.report.sections.field import field
from edgekit.report.sections.gaps import gaps
from edgekit.report.sections.look import look
from edgekit.report.sections.model import model_section, provenance
from edgekit.report.sections.pending import pending
from edgekit.report.sections.robustness import robustness
from edgekit.report.sections.speed import quick_speed, speed
from edgekit.report.sizes import sizes_of

REPORT: Final = "report.html"


@dataclass(frozen=True)
class WrittenReport(Document):
    """The page of a bundle or of several."""

    SCHEMA: ClassVar = 1

    bundle: Path
    """The first bundle."""
    report: Path
    """The page's file."""
    bundles: tuple[Path, ...] = ()
    """All of them, in the page's order."""


def write_report(
    path: Path,
    output: Path | None = None,
    watched: FieldAgainstLab | None = None,
    *,
    pictures: bool = True,
) -> Path:
    """Write the report into the bundle, or to ``output``; returns its path.

    ``watched`` is what a monitor has seen: of one device, so that it is for a file outside.
    Without ``pictures`` the page has none, and the bundle that it is written into loses its own:
    the next measurement, which writes the page again, would bring them back.
    """
    bundle = open_bundle(path, any_arch=True)
    if output is not None:
        write_text(output, report_page(bundle, watched=watched, pictures=pictures))
        return output
    if path.is_file():
        raise UsageError(
            f"{path} is a .zip and stays unchanged: name a file for the report with -o"
        )
    reports: dict[str, bytes | None] = {} if pictures else {EXAMPLES: None}
    page = report_page(bundle, inside=True, pictures=pictures)
    update_bundle(path, reports={**reports, REPORT: page.encode()})
    return path / REPORT


def refresh_report(path: Path) -> None:
    """Rewrite a bundle's report, if it has one, after its figures have changed."""
    if path.is_dir() and (path / REPORT).exists():
        write_report(path)


def report_page(
    bundle: Bundle,
    *,
    inside: bool = False,
    watched: FieldAgainstLab | None = None,
    pictures: bool = True,
) -> str:
    """The page; the same bundle gives the same text.

    ``inside`` the bundle, it links to the bundle's other files.
    """
    manifest, source = bundle.manifest, str(bundle.path)
    model = model_facts(manifest, source)
    sizes = sizes_of(manifest, REPORT, source)
    bench, parity, quick = read_bench(bundle), read_parity(bundle), read_summary(bundle)
    graph = read_graph_parity(bundle)
    summary = quick if bench is None else bench.summary()
    if summary is not None and summary.own is None:  # a run that timed no latency
        summary = quick
    title = f"{model.backbone} for {manifest.target.name}"
    parts = [
        banner(title, decide(manifest, parity, graph), manifest, sizes, bench, summary, parity),
        pending(manifest, source, parity, graph),
        robustness(parity),
        look(read_examples(bundle, parity) if pictures else None, parity),
        codes(parity),
        robustness(graph),
        codes(graph),
        field(watched),
        quick_speed(quick) if bench is None else speed(bench),
        model_section(bundle, model, sizes, parity),
        gaps(manifest, bench, parity, has_codebook=model.vqsa.has_codebook),
        provenance(manifest, inside=inside),
    ]
    return whole_page(title, [part for part in parts if part])
