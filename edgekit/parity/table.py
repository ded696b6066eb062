"""The parity report on a terminal: a row per corruption, and what it comes down to."""

from __future__ import annotations

from typing import Any

COLUMNS = ("corruption", "float %", "bundle %", "difference", "95% interval", "severity 1-5", "")
RIGHT = "float %,bundle %,difference,95% interval"
_BARS = "▁▂▃▄▅▆▇█"


def rows(document: dict[str, Any]) -> list[list[str]]:
    """One row per corruption; the last column marks those beyond the tolerance."""
    table = []
    for name, found in document.get("per_corruption", {}).items():
        table.append(
            [
                name.replace("_", " "),
                f"{found['reference']:.2f}",
                f"{found['candidate']:.2f}",
                f"{found['delta']:+.2f}",
                f"[{found['lower']:+.2f}, {found['upper']:+.2f}]",
                sparkline(found["errors"]["candidate"]),
                "worse" if found["lower"] > document["tolerance"] else "",
            ]
        )
    return table


def lines(document: dict[str, Any]) -> list[str]:
    """The figures under the table; the first line says what the model was trained on."""
    text = [
        f"trained with {document['seen']}; {document['images']} of "
        f"{document['images_available']} images of {document['data']}, corrupted "
        f"{document['corrupted']}",
        f"reference: {document['reference']}; candidate: {document['candidate']}",
    ]
    error = document["corruption_error"]
    if error is not None:
        clean = document["clean_error"]
        text += [
            f"clean error {clean['reference']:.2f} -> {clean['candidate']:.2f} %",
            f"{error['label']} {error['reference']:.2f} -> {error['candidate']:.2f} %, difference "
            f"{error['delta']:+.2f} [{error['lower']:+.2f}, {error['upper']:+.2f}] points",
        ]
    top, kl = document["top1_agreement"], document["kl_nats"]
    text.append(
        f"same class: clean {100 * top['clean']:.2f} %, corrupted "
        f"{100 * top['corrupted']['estimate']:.2f} %; KL(float || bundle): clean "
        f"{kl['clean']:.2g}, corrupted {kl['corrupted']:.2g} nats"
    )
    codes = document["codes"]
    if codes is not None:
        usage = codes["usage"]["reference"]
        text.append(
            f"same code: clean {100 * codes['clean_agreement']:.2f} %, corrupted "
            f"{100 * codes['corrupted_agreement']['estimate']:.2f} %; {usage['used']} of "
            f"{usage['size']} codes in use, perplexity {usage['perplexity']:.0f}"
        )
        margins = codes["margins"]
        if margins and margins["flipped"]["margins"]:
            flipped, kept = margins["flipped"]["margins"][2], margins["agreeing"]["margins"][2]
            text.append(
                f"median margin: {flipped:.2g} where the code flipped, {kept:.2g} elsewhere"
            )
    if document["saved"] > 0 and document["mode"] != "full":
        text.append(f"stopped early: {100 * document['saved']:.0f} % of the images were not needed")
    text += document.get("reasons", [])
    return text


def sparkline(percentages: list[float]) -> str:
    """Errors of rising severity as bars, 0 to 100%."""
    return "".join(_BARS[min(7, int(value / 12.5))] for value in percentages)
