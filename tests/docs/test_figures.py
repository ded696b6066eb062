"""Pages that show the same measurement show the same numbers."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README, QUICKSTART, PERFORMANCE, LOOKUP, QUANTIZATION = (
    (ROOT / name).read_text(encoding="utf-8")
    for name in (
        "README.md",
        *(f"docs/{name}.md" for name in ("quickstart", "performance", "exact-lookup")),
        "docs/quantization-results.md",
    )
)
TABLE = r"^target +size MB.*\n(cpu .*)$"
RATIO = r"([\d.]+ \[[\d.]+, [\d.]+\])"


def only(pattern: str, text: str) -> tuple[str, ...]:
    """The groups of the one match; a page that no longer shows the figure fails, too."""
    matches = list(re.finditer(pattern, text, re.MULTILINE))
    assert len(matches) == 1, f"{len(matches)} matches of {pattern}"
    return matches[0].groups()


def test_the_build_has_one_outcome() -> None:
    (row,) = only(TABLE, README)
    assert only(TABLE, QUICKSTART) == (row,)
    before, after = only(r"([\d.]+) -> ([\d.]+)  pass$", row)
    assert only(r"mean corruption error.*\| ([\d.]+) -> ([\d.]+) %, pass", PERFORMANCE) == (
        before,
        after,
    )
    assert f"`{row.split()[2]}` is the median latency" in QUICKSTART


def test_the_benchmark_has_one_outcome() -> None:
    shown = rf"{RATIO} times as fast as float ONNX Runtime, {RATIO} as float OpenVINO"
    onnxruntime, openvino = only(shown, PERFORMANCE)
    assert only(rf"^float, ONNX Runtime .* {RATIO}$", README) == (onnxruntime,)
    assert only(rf"^float, OpenVINO .* {RATIO}$", README) == (openvino,)


def test_the_machine_and_date_are_the_same() -> None:
    when = r"(?:on )?(?:2|two) cores of a Zen 4(?: on|,) (\d{4}-\d\d-\d\d)"
    assert only(when, README) == only(when, QUICKSTART)
    assert "2 cores of a Zen 4" in PERFORMANCE


def test_the_lookup_is_as_fast_as_its_page_says() -> None:
    summary = only(r"^\| lookup, .*\| ([\d.]+)x / ([\d.]+)x / ([\d.]+)x \|", PERFORMANCE)
    table = LOOKUP.split("`--hard`")[0]
    ratios = [
        only(rf"^\| {n}, 2048, 1 \|.*\| ([\d.]+) \(", table)[0] for n in (1000, 10000, 100000)
    ]
    assert summary == tuple(f"{float(ratio):.1f}" for ratio in ratios)


def test_the_recipes_keep_as_many_codes() -> None:
    kept, goal = only(r"keeps ([\d.]+)% of them under corruption;[^%]*made for (\d+)%", README)
    built_in = QUANTIZATION.split("## Built-in set")[1].split("## CIFAR-10")[0]
    (measured,) = only(r"\(`default`\) \| openvino \|(?:[^|]*\|){4} ([\d.]+) \[", built_in)
    assert kept == f"{float(measured):.1f}"
    only(rf"accuracy control, {goal}% of the codes \(`controlled`\) \| openvino", built_in)
