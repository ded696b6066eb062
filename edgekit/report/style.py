"""The page's colors and style sheet.

Figures name colors by role (``var(--worse)``), so both themes and print share one drawing. No two
of the verdict's colors differ in hue alone: tests/report/test_style.py looks at them through the
eyes of the color-blind, and measures the contrast of every text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

LIGHT: Final[Mapping[str, str]] = {
    "page": "#ffffff",
    "panel": "#f4f6f9",
    "ink": "#16202c",
    "quiet": "#566373",
    "rule": "#ccd4de",
    "link": "#0a5aa8",
    # Behind the verdict's words.
    "ship": "#00573f",
    "stop": "#b8500b",
    "open": "#6a6f85",
    "on-verdict": "#ffffff",
    # Marks: worse and better than the reference, neither, and several series.
    "worse": "#b8500b",
    "better": "#0a67b5",
    "even": "#566373",
    "limit": "#8a2be2",
    "series-1": "#0a67b5",
    "series-2": "#b8500b",
    "series-3": "#00765a",
    # Behind numbers, at full strength.
    "heat": "#7db4e6",
    "heat-worse": "#f0a35e",
    "heat-better": "#7db4e6",
    "note": "#fff3d1",
}
DARK: Final[Mapping[str, str]] = {
    "page": "#12171e",
    "panel": "#1b222c",
    "ink": "#e7ebf0",
    "quiet": "#a3afbd",
    "rule": "#394453",
    "link": "#7fbcf5",
    "ship": "#00573f",
    "stop": "#b8500b",
    "open": "#6a6f85",
    "on-verdict": "#ffffff",
    "worse": "#f0924a",
    "better": "#6db3f2",
    "even": "#a3afbd",
    "limit": "#c79bff",
    "series-1": "#6db3f2",
    "series-2": "#f0924a",
    "series-3": "#4cc9a4",
    "heat": "#1f5a94",
    "heat-worse": "#8f4a0c",
    "heat-better": "#1f5a94",
    "note": "#3b3113",
}


def _variables(colors: Mapping[str, str]) -> str:
    return "".join(f"--{name}:{color};" for name, color in colors.items())


_RULES: Final = """
*{box-sizing:border-box}
body{font:16px/1.5 system-ui,sans-serif;max-width:64rem;margin:0 auto;padding:1rem;
background:var(--page);color:var(--ink);overflow-wrap:break-word}
h1{font-size:1.5rem;line-height:1.25;margin:.5rem 0}
h2{font-size:1.25rem;margin:2.5rem 0 .75rem;border-bottom:1px solid var(--rule)}
h3{font-size:1.05rem;margin:1.5rem 0 .5rem}
p{margin:.5rem 0}a{color:var(--link)}
code{overflow-wrap:anywhere}
.quiet{color:var(--quiet)}
.note{background:var(--note);padding:.5rem .8rem;border-left:4px solid var(--stop)}
.banner{border:1px solid var(--rule);border-radius:.5rem;overflow:hidden;margin:1rem 0}
.banner .verdict{margin:0;padding:.8rem 1rem;font-size:1.6rem;font-weight:700;line-height:1.25;
color:var(--on-verdict)}
.ship .verdict{background:var(--ship)}.stop .verdict{background:var(--stop)}
.open .verdict{background:var(--open)}
.banner .inside{padding:.5rem 1rem 1rem;background:var(--panel)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(15rem,1fr));gap:.75rem 1.25rem;
margin:.75rem 0 0}
.tiles div{min-width:0}.tiles dt{color:var(--quiet);font-size:.85rem}
.tiles dd{margin:0;font-size:1.25rem;font-weight:600;line-height:1.3}
.tiles small{display:block;font-size:.85rem;font-weight:400;color:var(--quiet)}
.facts{display:grid;grid-template-columns:minmax(6.5rem,12rem) minmax(0,1fr);gap:.25rem 1rem;
margin:.75rem 0;font-size:.95rem}
.facts dt{color:var(--quiet)}.facts dd{margin:0;overflow-wrap:anywhere}
.wide{overflow-x:auto;margin:.75rem 0}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .7rem;text-align:right;border-bottom:1px solid var(--rule);vertical-align:top}
th{color:var(--quiet);font-weight:600}
th:first-child,td:first-child{text-align:left;padding-left:0}
td:last-child,th:last-child{text-align:left}.texts th,.texts td{text-align:left}
table:not(.texts) td:not(:first-child):not(:last-child){white-space:nowrap}
.beside{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(18.5rem,100%),1fr));
gap:0 1.5rem}.beside>*{min-width:0}
figure{margin:1rem 0;min-width:0}
figcaption{font-weight:600;font-size:.95rem;margin-bottom:.25rem}
figcaption small{display:block;font-weight:400;color:var(--quiet)}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(19rem,100%),1fr));gap:1rem;
margin:.75rem 0}
.card{background:var(--panel);border-radius:.5rem;padding:.5rem .75rem;min-width:0}
.card>p{margin:0;overflow-wrap:anywhere}.card>p small{color:var(--quiet)}
.card>div{display:flex;gap:.75rem}.card figure{margin:.4rem 0;flex:0 1 50%}
.card figcaption{font-size:.85rem;margin:.1rem 0}
.card img{display:block;width:100%;height:auto}.card img.tiny{image-rendering:pixelated}
.card dl{margin:0;font-size:.85rem;line-height:1.35}.card dt{color:var(--quiet)}
.card dd{margin:0 0 .15rem;overflow-wrap:anywhere}.card dd.wrong{color:var(--worse)}
svg{display:block;width:100%;max-width:48rem;overflow:hidden}
svg text{font:12px system-ui,sans-serif;fill:var(--ink)}
svg text.quiet{fill:var(--quiet)}svg text.small{font-size:11px}svg text.strong{font-weight:700}
details{margin:.75rem 0}summary{cursor:pointer;color:var(--link)}
@media(max-width:30rem){.facts{grid-template-columns:1fr;gap:0}.facts dd{margin-bottom:.5rem}
body{padding:.75rem}table{font-size:.72rem}th,td{padding:.25rem .14rem}}
@media print{body{max-width:none;padding:0;font-size:11pt}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}
figure,.banner,tr,.tiles div,.card{break-inside:avoid}h2,h3,figcaption{break-after:avoid}
details::details-content{content-visibility:visible;display:block;height:auto}
.wide{overflow:visible}table{font-size:9pt}th,td{padding:.2rem .4rem}
table:not(.texts) td:not(:first-child):not(:last-child){white-space:normal}}
"""

STYLE: Final = (
    f"\n:root{{color-scheme:light dark;{_variables(LIGHT)}}}\n"
    f"@media screen and (prefers-color-scheme:dark){{:root{{{_variables(DARK)}}}}}"
    f"{_RULES}"
)
"""Print is always light: dark pages waste toner."""
