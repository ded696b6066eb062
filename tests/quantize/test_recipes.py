import dataclasses
from pathlib import Path

import pytest

from edgekit.core.errors import UsageError
from edgekit.quantize.qat.config import FinetuneConfig
from edgekit.quantize.recipes import RECIPES, Recipe, check_dialect, read_recipe
from edgekit.targets.dialects import DIALECTS


@pytest.mark.parametrize("name", RECIPES)
def test_shipped_recipes_read(name: str) -> None:
    assert read_recipe(name).description


def test_finetuning_starts_from_the_default_rounded_to_the_nearest() -> None:
    started = read_recipe(FinetuneConfig().recipe)
    default = read_recipe("default")
    assert (started.rounding, default.rounding) == ("nearest", "least-error")
    assert dataclasses.replace(started, rounding="least-error", description="") == (
        dataclasses.replace(default, description="")
    )


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
        ("percentile = 12.0", "percentile must be above 50"),
        ("smooth_quant = 2.0", "smooth_quant must be 0 to 1"),
        ("max_drop = -1.0", "max_drop must not be negative"),
        ("control_images = 1", "control_images must be at least 2"),
        (
            "selection = 'even'",
            "'selection' must be one of 'random', 'balanced', 'stratified', 'quality'",
        ),
        ("statistics = 'kl'", "'statistics' must be one of 'mean-minmax', 'minmax'"),
        ("metric = 'top1'", "'metric' must be one of"),
        ("first_depthwise = 'fp16'", "'first_depthwise' must be one of 'float', 'int8'"),
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


def test_a_recipe_for_another_dialect() -> None:
    recipe = Recipe(preset="mixed")
    check_dialect(recipe, DIALECTS["openvino"])
    with pytest.raises(UsageError, match=r"'tensorrt' takes zero-point 0 only, .* 'mixed'"):
        check_dialect(recipe, DIALECTS["tensorrt"])


def test_the_command_line_replaces_the_recipes_control() -> None:
    controlled = read_recipe("controlled")
    assert (controlled.max_drop, controlled.metric) == (3.0, "code-agreement")
    other = read_recipe("controlled", max_drop=0.5, metric="corruption-error")
    assert (other.max_drop, other.metric) == (0.5, "corruption-error")
    assert read_recipe("default").max_drop is None
