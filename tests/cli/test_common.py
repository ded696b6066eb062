"""What all commands take alike: numbers and the files that they write."""

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from edgekit.cli.common import OutputFile
from edgekit.cli.main import cli
from edgekit.core.errors import UsageError
from tests.commands import run


def options(kind: type[click.ParamType]) -> Iterator[tuple[str, str, str]]:
    """The groups and name of each command, and each of its options of a kind."""
    for name, command in sorted(cli.commands.items()):
        inner = command.commands.items() if isinstance(command, click.Group) else [("", command)]
        for second, one in sorted(inner):
            for parameter in one.params:
                if isinstance(parameter, click.Option) and isinstance(parameter.type, kind):
                    yield name, second, max(parameter.opts, key=len)


NUMBERS = [
    *options(type(click.INT)),
    *options(click.IntRange),
    *options(type(click.FLOAT)),
    *options(click.FloatRange),
]


def test_every_number_is_of_ordinary_size() -> None:
    assert len(NUMBERS) > 60
    for name, second, option in NUMBERS:
        command = cli.commands[name]
        if second:
            assert isinstance(command, click.Group)
            command = command.commands[second]
        arguments = [
            one.type.choices[0] if isinstance(one.type, click.Choice) else "x"
            for one in command.params
            if isinstance(one, click.Argument)
        ]
        for value in ("9" * 20, f"-{'9' * 20}", "9" * 5000, "nan", "inf", "1e400"):
            with pytest.raises(click.UsageError) as error:
                command.make_context(name, [*arguments, f"{option}={value}"])
            assert option in error.value.format_message(), (name, value)


def outputs() -> list[tuple[str, str, str]]:
    return list(options(OutputFile))


def test_what_is_written_is_known_as_such() -> None:
    named = {(name, option) for name, _, option in outputs()}
    assert {("parity", "--summary"), ("bench", "--output"), ("build", "--save-config")} <= named


@pytest.mark.parametrize(("name", "second", "option"), outputs())
def test_nothing_but_files_is_written(
    name: str, second: str, option: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for place in ("/dev/null", tmp_path, tmp_path / "loop", tmp_path / ("a" * 300)):
        code, _, error = run(capsys, name, *filter(None, [second]), "x", option, place)
        assert code == 2
        assert f"error: {option} {place}" in error
        assert error.count("\n") == 1
    assert Path("/dev/null").is_char_device()


def test_a_link_stays_and_its_target_is_written(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("there")
    assert OutputFile().convert(str(tmp_path / "link"), None, None) == tmp_path / "there"
    assert OutputFile().convert("new/file", None, None) == Path("new/file")
    with pytest.raises(UsageError, match="is no folder to write in"):
        OutputFile().convert("/dev/null/a", None, None)


def test_a_path_beyond_what_the_system_takes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    for words in (
        ("parity", "loop", "--summary", "a.md"),
        ("predict", "a" * 5000, "b"),
        ("compare", "a" * 5000, "b"),
        ("verify", "a" * 300),
    ):
        code, _, error = run(capsys, *words)
        assert code == 2, error
        assert error.startswith("error: ")
        assert error.count("\n") == 1
