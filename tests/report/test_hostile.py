"""Documents that are not as we write them: one line or a page, never a traceback."""

import copy
import dataclasses
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekit.bench.document import FILE as BENCH
from edgekit.bench.options import SCENARIOS, BenchOptions
from edgekit.bench.strength import settle as settle_bench
from edgekit.bundle.store import Bundle, open_bundle, update_bundle
from edgekit.cli.main import main
from edgekit.core.documents import DocumentError
from edgekit.core.errors import UsageError
from edgekit.parity.document import FILE as PARITY
from edgekit.parity.strength import settle as settle_parity
from edgekit.report.page import report_page
from edgekit.workflows.inspect import BundleReport
from tests import bundles
from tests.bench import example as bench_example
from tests.parity import example as parity_example

WRONG: tuple[Any, ...] = (
    *(None, True, -1, 0, 10**30, 10**5000, 0.5, 1e308, -1e300, math.nan, math.inf),
    *("", "text", "a\nb\x1b[31m", [], [[]], [None], {}, {"a": {}}, {"a\nb": 1}),
)
MISSING = object()


def leaves(value: Any, keys: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value of a document, whole tables and lists too."""
    if keys:
        yield keys
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, inner in items:
        yield from leaves(inner, (*keys, key))


def changed(document: Any, keys: tuple[Any, ...], value: Any) -> Any:
    """The document with one value replaced or left out; what lies elsewhere is shared."""
    document = copy.copy(document)
    if len(keys) > 1:
        document[keys[0]] = changed(document[keys[0]], keys[1:], value)
    elif value is MISSING:
        del document[keys[0]]
    else:
        document[keys[0]] = value
    return document


def mutants(document: dict[str, Any]) -> Iterator[Any]:
    """Wrong as a whole, and each value of it wrong; of all ways to be wrong, some at each place."""
    yield from WRONG
    yield {}
    plain = json.loads(json.dumps(document))
    for number, keys in enumerate(leaves(plain)):
        for value in (MISSING, *WRONG[number % 5 :: 5]):
            yield changed(plain, keys, value)


def bench_document() -> dict[str, Any]:
    everything = BenchOptions(scenarios=SCENARIOS, layers=True)
    first = bench_example.document(everything, baselines=("float",))
    return settle_bench(first, bench_example.document(BenchOptions(seconds=1.0)))[0].to_dict()


def parity_document() -> dict[str, Any]:
    return settle_parity(parity_example.document(), parity_example.document(available=20))[
        0
    ].to_dict()


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    path = tmp_path / "cpu"
    shutil.copytree(bundles.bundle("cpu", "inline"), path)
    update_bundle(
        path,
        reports={
            BENCH: json.dumps(bench_document()).encode(),
            PARITY: json.dumps(parity_document()).encode(),
        },
    )
    opened = open_bundle(path)
    assert report_page(opened).count("<svg") == 12
    return opened


def with_sections(bundle: Bundle, files: tuple[str, ...] = (), **sections: Any) -> Bundle:
    """The bundle with other sections, and of its reports only ``files``."""
    manifest = bundle.manifest
    kept = {n: e for n, e in manifest.files.items() if n not in (BENCH, PARITY) or n in files}
    manifest = dataclasses.replace(manifest, files=kept, sections=sections)
    return dataclasses.replace(bundle, manifest=manifest)


def one_line(error: Exception) -> str:
    text = str(error)
    assert text.isprintable(), text
    assert len(text) < 600, text
    return text


@pytest.mark.parametrize(("name", "document"), [(BENCH, bench_document), (PARITY, parity_document)])
def test_every_change_of_a_report_file_is_a_page_or_one_line(
    bundle: Bundle, name: str, document: Any
) -> None:
    pages, refused = 0, []
    for mutant in mutants(document()):
        try:
            text = json.dumps(mutant)
        except ValueError:  # Python refuses to write the longest numbers, and not to receive them
            text = "1" + 5000 * "0"
        (bundle.folder / name).write_text(text)
        try:
            report_page(bundle)
            pages += 1
        except DocumentError as error:
            refused.append(one_line(error))
    assert all("again" in line or "is damaged" in line for line in refused)
    assert len(refused) > 5 * len(WRONG)
    assert pages > 5 * len(WRONG)


def test_what_is_no_json_is_one_line(bundle: Bundle) -> None:
    for content in (b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, b"NaN", b'{"schema": 2'):
        for name in (BENCH, PARITY):
            before = (bundle.folder / name).read_bytes()
            (bundle.folder / name).write_bytes(content)
            with pytest.raises(DocumentError) as error:
                report_page(bundle)
            one_line(error.value)
            (bundle.folder / name).write_bytes(before)


def test_every_change_of_a_section_is_a_row(bundle: Bundle) -> None:
    """`inspect` says what is wrong with a section, and shows the rest."""
    parity = {k: v for k, v in parity_document().items() if k != "per_corruption"}
    bench = bench_example.document(baselines=("float",)).summary().to_dict()
    usual = BundleReport(with_sections(bundle, parity=parity, bench=bench), 1).rows()
    assert dict(usual)["latency"] == "1.00 ms"
    assert dict(usual)["parity"].startswith("fail: it lost; this bundle was compared 2 times")
    for name, section in (("parity", parity), ("bench", bench)):
        for mutant in mutants(section):
            odd = with_sections(bundle, **{name: mutant})
            rows = BundleReport(odd, 1).rows()
            assert [row[:-1] for row in rows[:12]] == [row[:-1] for row in usual[:12]]
            try:
                report_page(odd)
            except DocumentError as error:
                one_line(error)


def test_every_change_of_the_model_is_a_row(bundle: Bundle) -> None:
    model = {
        "backbone": "resnet50",
        "width": 2048,
        "origin": "edgekit",
        "vqsa": {"output": "attention", "quantize": "pooled", "codebook_size": 16},
        "training": {"seen": ["fog"], "data": "photos", "note": None},
    }
    assert "N = 16" in dict(BundleReport(with_model(bundle, model), 1).rows())["model"]
    for mutant in mutants(model):
        if not isinstance(mutant, dict):
            continue  # the manifest's own check
        odd = with_model(bundle, mutant)
        assert dict(BundleReport(odd, 1).rows())["model"]
        try:
            report_page(odd)
        except UsageError as error:
            one_line(error)


def with_model(bundle: Bundle, model: Any) -> Bundle:
    return dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, model=model))


def test_commands_end_with_one_line(
    bundle: Bundle, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    older = {**parity_document(), "schema": 1}
    update_bundle(bundle.path, reports={PARITY: json.dumps(older).encode()})
    with pytest.raises(SystemExit) as stop:
        main(["report", str(bundle.path), "-o", str(tmp_path / "page.html")])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "parity.json has schema 1, this edgekit reads 2: run 'edgekit parity'" in line
    with pytest.raises(SystemExit) as stop:
        main(["inspect", str(bundle.path)])
    assert stop.value.code == 0
    assert "parity.json has schema 1" in capsys.readouterr().out
