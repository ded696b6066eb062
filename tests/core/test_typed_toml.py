from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.core.errors import UsageError
from edgekit.core.typed_toml import from_dict, parse_toml, read_toml, to_toml
from edgekit.model.config import VQSAConfig


@dataclass(frozen=True)
class Inner:
    kind: Literal["a", "b"] = "a"
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outer:
    count: int = 1
    rate: float = 0.5
    label: str | None = None
    on: bool = False
    inner: Inner = field(default_factory=Inner)


def test_reads_nested_tables_and_dashes() -> None:
    outer = parse_toml('count = 3\nrate = 2\n[inner]\nkind = "b"\nnames = ["x"]\n', Outer, "f.toml")
    assert outer == Outer(count=3, rate=2.0, inner=Inner("b", ("x",)))
    assert parse_toml("codebook-size = 7", VQSAConfig, "f").codebook_size == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("count = 1\nrat = 2", "f.toml:2: unknown key 'rat' (did you mean 'rate'?)"),
        (
            "count = 1\n\n[inner]\nkimd = 'a'",
            "f.toml:4: unknown key 'inner.kimd' (did you mean 'kind'?)",
        ),
        (
            "zzz = 1",
            "f.toml:1: unknown key 'zzz' (known: count, rate, label, on, inner)",
        ),
        ("count = 'x'", "f.toml:1: 'count' must be a whole number, not 'x'"),
        ("count = true", "f.toml:1: 'count' must be a whole number, not True"),
        ("on = 1", "f.toml:1: 'on' must be true or false, not 1"),
        ("[inner]\nkind = 'c'", "f.toml:2: 'inner.kind' must be one of 'a', 'b', not 'c'"),
        ("inner = 3", "f.toml:1: 'inner' must be a table, not 3"),
        ("[inner]\nnames = 'x'", "f.toml:2: 'inner.names' must be a list, not 'x'"),
    ],
)
def test_mistakes_name_line_and_key(text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_toml(text, Outer, "f.toml")
    assert str(error.value) == message


def test_bad_toml_and_missing_file(tmp_path) -> None:
    with pytest.raises(UsageError, match=r"f\.toml is not valid TOML"):
        parse_toml("a = = 1", Outer, "f.toml")
    with pytest.raises(UsageError, match="cannot read"):
        read_toml(tmp_path / "absent.toml", Outer)
    (tmp_path / "latin.toml").write_bytes(b"label = '\xff'")
    with pytest.raises(UsageError, match="not UTF-8"):
        read_toml(tmp_path / "latin.toml", Outer)


def test_a_value_check_names_the_file() -> None:
    with pytest.raises(UsageError, match=r"m\.toml: codebook_size must be 1 to 16777216, not 0"):
        parse_toml("codebook_size = 0", VQSAConfig, "m.toml")


@given(
    st.builds(
        Outer,
        count=st.integers(-(2**60), 2**60),
        rate=st.floats(-(2.0**62), 2.0**62),
        label=st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\x7f")),
        on=st.booleans(),
        inner=st.builds(
            Inner,
            kind=st.sampled_from(["a", "b"]),
            names=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\x7f"))).map(
                tuple
            ),
        ),
    )
)
def test_toml_round_trip(outer: Outer) -> None:
    assert parse_toml(to_toml(outer), Outer, "f.toml") == outer


def test_from_dict_takes_null() -> None:
    assert from_dict(Outer, {"label": None, "count": 2}, "x") == Outer(count=2)


@pytest.mark.parametrize("number", ["nan", "inf", "1e400", "9" * 20, f"-{'9' * 300}"])
@pytest.mark.parametrize("key", ["rate", "count"])
def test_numbers_are_of_ordinary_size(key: str, number: str) -> None:
    with pytest.raises(
        UsageError, match=r"f\.toml:1: .*must be a number of ordinary size"
    ) as error:
        parse_toml(f"{key} = {number}", Outer, "f.toml")
    assert len(str(error.value)) < 300
