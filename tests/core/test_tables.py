"""Every table fits every terminal, and shortens no name and no number."""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgekit
from edgekit.cli.parity_plan import head as plan_head
from edgekit.core.console import Console
from edgekit.core.progress import track
from edgekit.core.tables import FACTS, Column, Table, displayed, fold, layout, plain
from tests import terminals

ROOT = Path(edgekit.__file__).parent
WIDTHS = (40, 60, 80, 120)
NAME, FIGURE = "jetson-orin-nano-{}", "-{}.34 [-50.12, +2.97]"
PROSE = (
    "no library of TensorRT found for {}: run apt-get install libnvinfer-bin, or name another "
    "target; 'edgekit targets' lists all of them, and what is missing on this machine"
)


def calls() -> Iterator[tuple[Path, ast.Call]]:
    """Every place that prints a table."""
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                of = ast.unparse(node.func)
                if of.split(".")[-2:] == ["console", "table"]:
                    yield path, node


def tables() -> Iterator[tuple[str, Table]]:
    """Every table that is printed, by the module and name of its head."""
    for path, node in calls():
        module = ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
        name = ast.unparse(node.args[0])
        if name.isupper():
            found = getattr(importlib.import_module(module), name, None)
            if found is None:  # out of another module, inside the command
                found = {"LOSSES": importlib.import_module("edgekit.report.sensitivity").LOSSES}[
                    name
                ]
            yield f"{module.removeprefix('edgekit.')}.{name}", found
    for models in (("float", "bundle"), ("reference", "candidate")):
        yield f"parity {models[0]}", parity(models)
    yield "parity plan", plan_head(250)
    yield "across matrix", Table.of("", *(Column(letter, "figure") for letter in "ABCD"))


def parity(models: tuple[str, str]) -> Table:
    """That of a comparison, whose head depends on what was compared."""
    from types import SimpleNamespace

    from edgekit.report.parity_table import head

    sides = None if models[0] == "float" else object()
    table = head(SimpleNamespace(sides=sides))  # type: ignore[arg-type]
    assert [column.name for column in table.columns[1:3]] == list(models)
    return table


def sample(table: Table, count: int = 3) -> list[list[str]]:
    """Rows with every kind of cell at its widest."""
    texts = {"name": NAME, "figure": FIGURE, "prose": PROSE}
    return [
        [texts[column.kind].format(f"{row}{place}") for place, column in enumerate(table.columns)]
        for row in range(count)
    ]


def words(text: str) -> str:
    return " ".join(text.split())


def test_every_table_is_looked_at() -> None:
    heads = [ast.unparse(node.args[0]) for _, node in calls()]
    assert len(heads) >= 19
    assert sorted({head for head in heads if not head.isupper()}) == [
        "head",
        "head(document)",
        "head(images)",
    ]


@pytest.mark.parametrize(("name", "table"), list(tables()))
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("count", [1, 3])
def test_every_table_fits_every_terminal(name: str, table: Table, width: int, count: int) -> None:
    rows = sample(table, count)
    lines = layout(table, rows, "what this table says", width)
    text = plain(lines)
    assert max(map(displayed, text.splitlines())) <= width, f"{name}\n{text}"
    assert "…" not in text
    said = re.search(r"left out at \d+ columns: ([\s\S]*)", text)
    gone = [] if said is None else words(said[1]).split(", ")
    for row in rows:
        for column, cell in zip(table.columns, row, strict=True):
            if column.name in gone:
                assert cell not in text
            elif column.kind != "prose":
                assert cell in text, f"{name}: {cell}\n{text}"
            else:
                assert all(word in text for word in cell.split())
    assert count > 1 or not gone, "a single row loses nothing"


@pytest.mark.parametrize(("name", "table"), list(tables()))
def test_a_log_has_all_of_it(name: str, table: Table) -> None:
    rows = sample(table)
    first, *others = plain(layout(table, rows)).splitlines()
    if any(column.name for column in table.columns):
        assert first.split() == " ".join(column.name for column in table.columns).split()
    else:
        others = [first, *others]
    assert [words(line) for line in others] == [words(" ".join(row)) for row in rows], name


LATENCY = Table.of(
    "model",
    Column("ms", "figure"),
    Column("calls", "figure", drop=1),
    Column("of the float model's"),
)
TWO = [["cpu", "1.25", "1000", "0.5"], ["a-longer-name", "12.50", "20", ""]]


def test_columns_go_in_their_order_and_the_rest_becomes_blocks() -> None:
    assert plain(layout(LATENCY, TWO, width=60)).splitlines() == [
        "model             ms  calls  of the float model's",
        "cpu             1.25   1000  0.5",
        "a-longer-name  12.50     20",
    ]
    assert plain(layout(LATENCY, TWO, width=36)).splitlines() == [
        "model             ms  calls  of the",
        "                             float",
        "                             model's",
        "cpu             1.25   1000  0.5",
        "a-longer-name  12.50     20",
    ]
    assert plain(layout(LATENCY, TWO, width=32)).splitlines() == [
        "model             ms  of the",
        "                      float",
        "                      model's",
        "cpu             1.25  0.5",
        "a-longer-name  12.50",
        "left out at 32 columns: calls",
    ]
    assert plain(layout(LATENCY, TWO, width=28)).splitlines() == [
        "cpu",
        "  ms                    1.25",
        "  calls                 1000",
        "  of the float model's  0.5",
        "a-longer-name",
        "  ms",
        "    12.50",
        "  calls                 20",
    ]


def test_what_is_wider_than_the_terminal_is_whole() -> None:
    path = "/a/very/long/path/to/a/bundle/that/nobody/will/want/to/type/again"
    text = plain(layout(FACTS, [("stored in", path), ("runs here", "yes")], width=40))
    assert text.splitlines() == ["stored in", f"  {path}", "runs here", "  yes"]
    named = Table.of("target", Column("stored in", "prose"))
    assert plain(layout(named, [("cpu", f"at {path}")], width=40)).splitlines() == [
        "cpu",
        "  stored in",
        "    at",
        f"    {path}",
    ]


def test_wide_letters_count_twice() -> None:
    assert [displayed(text) for text in ("cat", "猫", "cafe\u0301")] == [3, 2, 4]
    text = plain(layout(Table.of("label", "share"), [["猫", "1"], ["cat", "2"]]))
    assert text.splitlines()[1:] == ["猫     1", "cat    2"]


def test_prose_is_folded_at_spaces_alone() -> None:
    assert fold("one two-and-a-half three", 12, "  ") == ["one", "  two-and-a-half", "  three"]
    assert fold("first\n\nsecond", 40) == ["first", "", "second"]
    assert fold("a b", None) == ["a b"]


def test_on_a_terminal_all_that_is_printed_fits(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminals.pretend(monkeypatch, 40)
    console = Console()
    rows = [[NAME, FIGURE, "10", "pass"], [NAME, FIGURE, "20", "fail"]]
    console.table(Table.of("a", "b", Column("c", drop=1), "d"), rows, "a title")
    for say in (console.prose, console.info, console.warn, console.error):
        say(PROSE)
    said = capsys.readouterr()
    assert max(map(len, terminals.uncolored(said.out + said.err).splitlines())) <= 40
    assert "\x1b[1;32mpass\x1b[0m" in said.out
    assert "\x1b" not in said.err


def test_in_a_log_a_message_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.info(PROSE)
    console.prose(PROSE)
    said = capsys.readouterr()
    assert said.err == f"{PROSE}\n"
    assert max(map(len, said.out.splitlines())) <= 80


@pytest.mark.parametrize("width", WIDTHS)
def test_a_progress_bar_fits(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    figures = "difference +0.00 [-100.00, +100.00]"
    terminals.pretend(monkeypatch, width)
    monkeypatch.setenv("COLUMNS", "80")  # whoever has imported readline has it
    title = "parity, 4 variants an image"
    for _ in track(Console(), range(600), 600, title, lambda: figures):
        pass
    text = terminals.uncolored(capsys.readouterr().err)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert title in text
    assert "600/600" in text
    assert figures in text
    assert ("ETA" in text) == (width >= 60)
    assert ("━" in text) == (width >= 80)
