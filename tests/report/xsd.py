"""The part of XML Schema that tests/fixtures/junit.xsd uses: content models and simple attributes.

A package that knows all of XML Schema would be one more to install for a single test.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

_X = "{http://www.w3.org/2001/XMLSchema}"
_TYPES = {"xs:string": ".*", "xs:nonNegativeInteger": r"\+?\d+", "xs:decimal": r"[+-]?\d+(\.\d*)?"}


def problems(schema: Path, document: bytes) -> list[str]:
    """What in ``document`` is not as the schema says."""
    elements = {element.get("name"): element for element in ET.parse(schema).getroot()}
    root = ET.fromstring(document)
    return _element(elements, root, root.tag)


def _element(known: dict[str | None, ET.Element], node: ET.Element, at: str) -> list[str]:
    if node.tag not in known:
        return [f"{at}: no such element"]
    kind = known[node.tag].find(f"{_X}complexType")
    found = []
    attributes = (
        {} if kind is None else {one.get("name", ""): one for one in kind.iter(f"{_X}attribute")}
    )
    for name, value in node.attrib.items():
        if name not in attributes:
            found.append(f"{at}: no attribute {name}")
        elif not re.fullmatch(_TYPES[attributes[name].get("type", "")], value, re.DOTALL):
            found.append(f"{at}: {name} is {value!r}")
    for name, one in attributes.items():
        if one.get("use") == "required" and name not in node.attrib:
            found.append(f"{at}: {name} is missing")
    sequence = None if kind is None else kind.find(f"{_X}sequence")
    model = "" if sequence is None else _pattern(sequence)
    children = "".join(f"<{child.tag}>" for child in node)
    if not re.fullmatch(model, children):
        found.append(f"{at}: holds {children}")
    if sequence is not None and (node.text or "").strip():
        found.append(f"{at}: holds text")
    for child in node:
        found += _element(known, child, f"{at}/{child.tag}")
    return found


def _pattern(particle: ET.Element) -> str:
    """A content model as a regular expression over the children's names."""
    if particle.tag == f"{_X}element":
        text = re.escape(f"<{particle.get('ref')}>")
    else:
        between = "|" if particle.tag == f"{_X}choice" else ""
        text = between.join(_pattern(child) for child in particle)
    least, most = particle.get("minOccurs", "1"), particle.get("maxOccurs", "1")
    return f"(?:{text}){{{least},{'' if most == 'unbounded' else most}}}"
