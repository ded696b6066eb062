"""A gate's outcome as JUnit XML, which CI systems show as tests.

A suite a bundle, a case a budget and a corruption. A budget that is broken or undecided is a
failure. A corruption that got worse is none by itself: its case says so, and passes.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import Final

from edgekit.core.console import printable, shortened
from edgekit.metrics.budgets import LeftOut
from edgekit.report.gate import GatedBundle, GateReport

# XML 1.0 has no way at all to write these, not even as references.
_FORBIDDEN: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_junit(report: GateReport) -> bytes:
    """The document."""
    root = ET.Element("testsuites", name=f"edgekit {report.command}")
    for bundle in report.bundles:
        root.append(_suite(report.command, bundle, report.left_out))
    for name in ("tests", "failures", "errors", "skipped"):
        root.set(name, str(sum(int(suite.get(name, "0")) for suite in root)))
    ET.indent(root)
    text: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _suite(command: str, bundle: GatedBundle, left_out: Sequence[LeftOut]) -> ET.Element:
    name = clean(bundle.name)
    suite = ET.Element("testsuite", name=name)
    place = f"edgekit.{command}.{name.replace('.', '_')}"
    if bundle.report is not None:
        properties = ET.SubElement(suite, "properties")
        ET.SubElement(properties, "property", name="report", value=clean(bundle.report))
    if bundle.verdict is not None:
        case = _case(suite, place, bundle.what)
        if bundle.verdict != "pass":
            _fail(case, bundle.verdict, bundle.reason)
    for row in bundle.budgets:
        case = _case(suite, place, row.name)
        if row.state == "held":
            _say(case, row.sentence())
        else:
            _fail(case, row.state, row.sentence())
    for one in left_out:
        ET.SubElement(_case(suite, place, one.name), "skipped", message=clean(one.why))
    for change in bundle.changes:
        case = _case(suite, place, f"{clean(change.corruption)} against {clean(change.against)}")
        _say(case, f"{change.figures} points{', worse' if change.worse else ''}")
    suite.set("tests", str(len(suite.findall("testcase"))))
    for kind, found in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(kind, str(len(suite.findall(f"testcase/{found}"))))
    return suite


def _case(suite: ET.Element, place: str, name: str) -> ET.Element:
    return ET.SubElement(suite, "testcase", classname=place, name=name)


def _fail(case: ET.Element, kind: str, message: str) -> None:
    failure = ET.SubElement(case, "failure", type=kind, message=clean(message))
    failure.text = clean(message)


def _say(case: ET.Element, text: str) -> None:
    ET.SubElement(case, "system-out").text = clean(text)


def clean(text: str) -> str:
    """``text`` with escapes for what a terminal would obey or XML cannot hold."""
    shown = shortened(printable(text, lines=False))
    return _FORBIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", shown)
