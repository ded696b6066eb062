"""The colors: legible in both themes, and told apart by everybody."""

import itertools

import pytest

from edgekit.report.style import DARK, LIGHT, STYLE

THEMES = pytest.mark.parametrize("colors", [LIGHT, DARK], ids=["light", "dark"])
# How the color-blind see linear light (Machado, Oliveira and Fernandes 2009, whole deficiency).
EYES = {
    "usual": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "protanopia": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritanopia": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}


def linear(color: str) -> list[float]:
    channels = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    return [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]


def seen(color: str, eyes: str) -> list[float]:
    light = linear(color)
    return [
        min(1.0, max(0.0, sum(a * b for a, b in zip(row, light, strict=True))))
        for row in EYES[eyes]
    ]


def lab(light: list[float]) -> tuple[float, float, float]:
    """CIE L*a*b* of linear sRGB under D65."""
    rows = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
    white = (0.9505, 1.0, 1.089)
    x, y, z = (
        sum(a * b for a, b in zip(row, light, strict=True)) / of
        for row, of in zip(rows, white, strict=True)
    )
    f = [t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116 for t in (x, y, z)]
    return 116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])


def apart(one: str, other: str, eyes: str) -> float:
    pairs = zip(lab(seen(one, eyes)), lab(seen(other, eyes)), strict=True)
    return sum((a - b) ** 2 for a, b in pairs) ** 0.5


def contrast(one: str, other: str) -> float:
    def luminance(color: str) -> float:
        r, g, b = linear(color)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


@THEMES
@pytest.mark.parametrize("eyes", EYES)
def test_verdicts_and_series_are_told_apart(colors: dict[str, str], eyes: str) -> None:
    """20 is about ten times what is just noticeable side by side."""
    groups = (
        ("ship", "stop", "open"),
        ("worse", "better"),
        ("series-1", "series-2"),
        ("heat-worse", "heat-better"),
    )
    for group in groups:
        for one, other in itertools.combinations(group, 2):
            assert apart(colors[one], colors[other], eyes) > 20, (one, other)


@THEMES
def test_every_text_is_legible(colors: dict[str, str]) -> None:
    """4.5 is what WCAG 2 asks of text (AA), 3 of large text and of graphs."""
    behind = ("page", "panel", "note", "heat", "heat-worse", "heat-better")
    for place in behind:
        assert contrast(colors["ink"], colors[place]) >= 4.5, place
    pairs = ("quiet", "page"), ("quiet", "panel"), ("link", "page"), ("worse", "panel")
    for text, place in pairs:
        assert contrast(colors[text], colors[place]) >= 4.5, (text, place)
    for verdict in ("ship", "stop", "open"):
        assert contrast(colors["on-verdict"], colors[verdict]) >= 4.5, verdict
    for mark in ("worse", "better", "even", "limit", "series-1", "series-2", "series-3"):
        assert contrast(colors[mark], colors["page"]) >= 3, mark


def test_both_themes_have_the_same_colors_and_print_is_light() -> None:
    assert LIGHT.keys() == DARK.keys()
    assert "@media screen and (prefers-color-scheme:dark)" in STYLE
    assert not any(word in STYLE for word in ("url(", "@import", "http"))
