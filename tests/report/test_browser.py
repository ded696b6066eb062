"""The page in a real browser, where one is installed: nothing sticks out, nothing complains."""

import dataclasses
import html
import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from edgekit.bench.options import SCENARIOS, BenchOptions
from edgekit.bundle.store import open_bundle, update_bundle
from edgekit.parity.document import MarginGroup, MarginHistogram, Margins
from edgekit.report.figures.margins import margins
from edgekit.report.page import report_page
from edgekit.report.several import several_page
from edgekit.report.style import DARK, LIGHT, STYLE
from tests import bundles
from tests.bench import example as bench_example
from tests.parity import example as parity_example
from tests.report.pictures import MEASURED, examples

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
WIDTHS = (360, 1200)

pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium")

# Frames are as wide as the screens in question, and may be measured, unlike a narrow window.
SCRIPT = """
<script>
onload = () => {
  const found = [...document.querySelectorAll("iframe")].map(frame => {
    const page = frame.contentDocument.documentElement;
    const wide = [...page.querySelectorAll("svg text")].filter(text => {
      const own = text.getBoundingClientRect();
      const svg = text.ownerSVGElement.getBoundingClientRect();
      return own.left < svg.left - 2 || own.right > svg.right + 2;
    });
    return {scrolls: page.scrollWidth, cut: wide.map(text => text.textContent),
            figures: [...page.querySelectorAll("svg")].map(svg => svg.clientWidth),
            pictures: [...page.querySelectorAll("img")].map(
              img => img.complete && img.naturalWidth === 224 ? img.clientWidth : 0)};
  });
  document.body.textContent = JSON.stringify(found);
};
</script>
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A page of a bundle that nobody measured, one with everything, and one of two bundles."""
    path = tmp_path_factory.mktemp("report") / "cpu"
    shutil.copytree(bundles.bundle("cpu", "inline"), path)
    bare = report_page(open_bundle(path))
    bench = bench_example.document(BenchOptions(scenarios=SCENARIOS, layers=True))
    parity = parity_example.document(measured=MEASURED)
    shown = examples(224, image="photos/" + "a-name-without-a-place-to-break" * 3)
    update_bundle(
        path,
        reports={
            "bench.json": json.dumps(bench.to_dict()).encode(),
            "parity.json": json.dumps(parity.to_dict()).encode(),
            "examples.json": json.dumps(shown.to_dict()).encode(),
        },
        sections={"float": {"size_bytes": 30_000_000}},
    )
    opened = open_bundle(path)
    manifest = dataclasses.replace(opened.manifest, created="2001-01-01T00:00:00Z")
    older = dataclasses.replace(opened, manifest=manifest)
    return {
        "bare": bare,
        "full": report_page(opened, inside=True),
        "several": several_page([opened, older]),
    }


def browse(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Chromium with these options, and what it says."""
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu"]
    command += ["--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}", *options]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)


def test_no_width_cuts_anything_off_and_the_console_is_silent(
    pages: dict[str, str], tmp_path: Path
) -> None:
    frames = [
        f'<iframe width="{width}" height="900" srcdoc="{html.escape(page)}"></iframe>'
        for page in pages.values()
        for width in WIDTHS
    ]
    whole = tmp_path / "frames.html"
    whole.write_text(f"<!DOCTYPE html><meta charset=utf-8>{SCRIPT}{''.join(frames)}")
    done = browse(tmp_path, "--virtual-time-budget=2000", "--dump-dom", whole.as_uri())
    assert "CONSOLE" not in done.stderr
    found = re.search(r"<body>(\[.*\])</body>", done.stdout)
    assert found is not None, done.stdout[-500:]
    measured = json.loads(html.unescape(found[1]))
    assert [bool(one["figures"]) for one in measured] == [False, False, True, True, True, True]
    assert [len(one["pictures"]) for one in measured] == [0, 0, 4, 4, 0, 0]
    for one, width in zip(measured, WIDTHS * len(pages), strict=True):
        assert one["scrolls"] <= width
        assert not one["cut"]
        assert all(250 < figure < width for figure in one["figures"])
        assert all(120 < picture < width / 2 for picture in one["pictures"])


GAPS = """
<script>
onload = () => {
  const gaps = [...document.querySelectorAll("svg")].map(svg => {
    const texts = [...svg.querySelectorAll("text.quiet")];
    const labels = texts.map(text => text.getBoundingClientRect());
    return labels.flatMap(one => labels.filter(other => other !== one && other.top === one.top &&
      other.left >= one.left).map(other => other.left - one.right));
  });
  document.body.textContent = JSON.stringify(gaps);
};
</script>
"""


def test_the_labels_of_margins_keep_apart_on_a_phone(tmp_path: Path) -> None:
    figures = []
    for low, high in ((1e-5, 2.0), (1e-5, 1.0), (1e-4, 1.0), (1e-3, 9.0), (1e-9, 1.0), (1e-9, 1e4)):
        edges = (0.0, *(low * (high / low) ** (part / 40) for part in range(41)))
        counts, group = (1,) * 41, MarginGroup(41, None)
        histogram = MarginHistogram(edges, counts, counts)
        figures.append(margins(Margins((0.25, 0.5, 0.75), group, group, histogram)))
    path = tmp_path / "page.html"
    page = f"<!DOCTYPE html><meta charset=utf-8><style>{STYLE}</style>"
    path.write_text(f'{page}<div style="width: 320px">{"".join(figures)}</div>{GAPS}')
    done = browse(tmp_path, "--dump-dom", path.as_uri())
    found = re.search(r"<body>(\[.*\])</body>", done.stdout)
    assert found is not None, done.stdout[-500:]
    gaps = json.loads(found[1])
    assert len(gaps) == len(figures)
    assert all(len(each) > 1 and min(each) > 6 for each in gaps), gaps


COLORS = """
<script>
onload = () => {
  const style = getComputedStyle(document.body);
  document.body.textContent = style.backgroundColor + " " + style.color;
};
</script>
"""


@pytest.mark.parametrize(("number", "scheme"), [(0, DARK), (1, LIGHT)], ids=("dark", "light"))
def test_it_follows_the_theme(
    number: int, scheme: Mapping[str, str], pages: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "page.html"
    path.write_text(pages["full"] + COLORS)
    option = f"--blink-settings=preferredColorScheme={number}"
    done = browse(tmp_path, option, "--dump-dom", path.as_uri())
    colors = [
        f"rgb({', '.join(str(value) for value in bytes.fromhex(scheme[role][1:]))})"
        for role in ("page", "ink")
    ]
    assert " ".join(colors) in done.stdout
    assert "CONSOLE" not in done.stderr


def test_it_prints(pages: dict[str, str], tmp_path: Path) -> None:
    """On paper folded tables are open, so there is more of it than of the bare page."""
    sheets = {}
    for name in ("bare", "full"):
        path, paper = tmp_path / f"{name}.html", tmp_path / f"{name}.pdf"
        path.write_text(pages[name])
        browse(tmp_path, f"--print-to-pdf={paper}", path.as_uri())
        sheets[name] = len(re.findall(rb"/Type */Page\b", paper.read_bytes()))
    assert 1 <= sheets["bare"] < sheets["full"] < 20
