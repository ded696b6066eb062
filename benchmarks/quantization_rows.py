"""The rows of `quantization_results.py`, and the recipes that only they use."""

from __future__ import annotations

from dataclasses import dataclass

NEAREST = 'rounding = "nearest"\nfirst_depthwise = "int8"\n'
PLAIN = f'{NEAREST}bias_correction = "fast"\n'
HALF = 'corrupted_share = 0.5\ncorruptions = "benchmark15"\n'
# What the shipped recipes are compared with: their parts, one at a time.
RECIPES = {
    "plain": PLAIN,
    "plain-corrupted": PLAIN + HALF,
    "biases-corrupted": NEAREST + HALF,
    "biases-stratified": f'{NEAREST}selection = "stratified"\n{HALF}',
    "all-int8": f'first_depthwise = "int8"\n{HALF}',
    "quality": f'selection = "quality"\n{HALF}',
}


@dataclass(frozen=True)
class Row:
    """A line of the table: what it is called, the recipe, and how it is fine-tuned if it is."""

    name: str
    recipe: str
    code_weight: float | None = None  # of fine-tuning; None: post-training only
    epochs: int = 2  # likewise

    @property
    def slug(self) -> str:
        """Its name in files and options."""
        if self.code_weight is None:
            return self.recipe
        longer = "" if self.epochs == Row.epochs else f"-{self.epochs}"
        return f"finetuned-{self.code_weight:g}-{self.recipe}{longer}"


ROWS = (
    Row("NNCF's default: clean images", "plain"),
    Row("clean images, depthwise biases (`clean`)", "clean"),
    Row("half corrupted, no depthwise biases", "plain-corrupted"),
    Row("half corrupted, depthwise biases", "biases-corrupted"),
    Row("the same, stratified by corruption and code", "biases-stratified"),
    Row("half corrupted, biases, least-error rounding", "all-int8"),
    Row("the same, first depthwise convolution in float (`default`)", "default"),
    Row('`default`, spread over image quality (`selection = "quality"`)', "quality"),
    Row("accuracy control, 97% of the codes (`controlled`)", "controlled"),
    Row("fine-tuned, 2 epochs, all layers in INT8, no code consistency", "biases-corrupted", 0.0),
    Row("fine-tuned, 2 epochs, all layers in INT8, code consistency", "biases-corrupted", 1.0),
    Row("fine-tuned from `nearest`, 2 epochs, code consistency", "nearest", 1.0),
    Row("fine-tuned from `nearest`, 6 epochs, code consistency", "nearest", 1.0, 6),
)
