from pathlib import Path

import pytest

from edgekit.errors import UsageError
from edgekit.quantize.recipes import RECIPES, Recipe, read_recipe


@pytest.mark.parametrize("name", RECIPES)
def test_shipped_recipes_read(name: str) -> None:
    assert read_recipe(name).description


def test_the_robust_recipe_corrupts_half() -> None:
    robust = read_recipe("robust")
    assert (robust.corrupted_share, robust.corruptions) == (0.5, "benchmark15")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("images = 0", "images must be at least 1"),
        ("corrupted_share = 2.0", "corrupted_share must be 0 to 1"),
        ("corrupted_share = 0.5", "corruptions names none"),
        ("corruptions = 'fogg'", "fog"),
        ("severities = [0]", "severities must be some of 1 to 5"),
        ("imagess = 3", r"mine\.toml:1: unknown key 'imagess' \(did you mean 'images'\?\)"),
        ("preset = 'fast'", "'preset' must be one of 'performance', 'mixed'"),
    ],
)
def test_mistakes_in_a_recipe(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_recipe(str(path))


def test_unknown_name() -> None:
    with pytest.raises(UsageError, match=r"unknown recipe 'robus' \(did you mean 'robust'\?\)"):
        read_recipe("robus")


def test_a_recipe_is_the_defaults_and_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("images = 7")
    assert read_recipe(str(path)) == Recipe(images=7)
