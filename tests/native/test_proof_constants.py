"""The proof in docs/exact-lookup.md and the code must speak of the same constants."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def value(text: str, unit: float) -> float:
    """The number that `text` from the page or the header stands for."""
    text = text.replace("kUnit", "u").replace("0x1p-", "2^-").replace("*", " ")
    total = 0.0
    for term in text.split("+"):
        product = 1.0
        for factor in term.split():
            base, _, power = factor.partition("^")
            product *= unit if factor == "u" else float(base) ** float(power or 1)
        total += product
    return total


def check_table(page: str, header: str, coded: dict[str, str], unit: float) -> None:
    stated = dict(re.findall(r"^\| `(k\w+)` \| ([^|]+?) \|", page, re.MULTILINE))
    assert stated
    assert set(stated) == set(coded), header
    for name in coded:
        assert value(stated[name], unit) == value(coded[name], unit), name


def test_the_page_states_the_constants_of_the_code():
    page, on_a_gpu = (ROOT / "docs/exact-lookup.md").read_text().split("\n## On a GPU\n")
    header = (ROOT / "targets/codebook/bounds.h").read_text()
    coded = dict(re.findall(r"^constexpr \w+ (k\w+) = ([^;]+);", header, re.MULTILINE))
    unit = value(coded["kUnit"], 0)
    assert unit == 2.0**-24
    check_table(page, "bounds.h", coded, unit)
    header = (ROOT / "targets/codebook/cuda/bounds.h").read_text()
    coded = dict(re.findall(r"^constexpr \w+ (k\w+) = ([^;]+?)f?;", header, re.MULTILINE))
    assert value(coded.pop("kUnit"), 0) == unit
    for other in ("kDoubleInflate", "kDoubleError", "kVectorShift", "kRowShift"):
        del coded[other]
    check_table(on_a_gpu, "cuda/bounds.h", coded, unit)


def test_the_page_counts_roundings_as_the_code_does():
    page = (ROOT / "docs/exact-lookup.md").read_text().replace("\n", " ")
    source = (ROOT / "targets/codebook/bounds.cpp").read_text()
    for name, chunk in (("product_error", 4), ("chunked_product_error", 16), ("exact_error", 16)):
        count = re.search(
            rf"double {name}\(int64_t d\) \{{ return accumulated\(d / {chunk} \+ (\d+)", source
        )
        assert count is not None, name
        assert re.search(
            rf"`{name}\(D\)`[^;`]*= γ_r\([uw]\)\s+with r = ⌊D/{chunk}⌋ \+ {count[1]}\b", page
        ), name
