"""The parity report on a terminal: a row per corruption, and what it comes down to."""

from __future__ import annotations

from typing import Any

COLUMNS = ("corruption", "float", "bundle", "difference", "95% interval", "severity", "")
RIGHT = "float,bundle,difference,95% interval"
_BARS = "▁▂▃▄▅▆▇█"


def header(document: dict[str, Any]) -> list[str]:
    """What was compared on what; the training protocol comes first, always."""
    severities = ",".join(map(str, document["severities"]))
    return [
        f"trained with {document['seen']}",
        f"{document['reference']} -> {document['candidate']}, {document['images']:,} of "
        f"{document['images_available']:,} images of {document['data']}, corrupted "
        f"{document['corrupted']}, severities {severities}",
    ]


def rows(document: dict[str, Any]) -> list[list[str]]:
    """A row for each corruption, then the mean with the verdict; errors in percent.

    "worse" and "better" mark what the simultaneous intervals show; the bars are the bundle's
    errors by severity, from 0 to 100%.
    """
    if document["per_corruption"] is None:
        return []
    table = [
        [
            name.replace("_", " ") + ("" if found["averaged"] else " (not averaged)"),
            *_figures(found),
            sparkline(found["errors"]["candidate"]),
            "worse" if found["lower"] > 0 else "better" if found["upper"] < 0 else "",
        ]
        for name, found in document["per_corruption"].items()
    ]
    error, clean = document["corruption_error"], document["clean_error"]
    change = clean["candidate"] - clean["reference"]
    first = ["clean", f"{clean['reference']:.2f}", f"{clean['candidate']:.2f}", f"{change:+.2f}"]
    last = [error["label"], *_figures(error), "", document["verdict"]]
    return [[*first, "", "", ""], *table, last]


def _figures(found: dict[str, Any]) -> list[str]:
    return [
        f"{found['reference']:.2f}",
        f"{found['candidate']:.2f}",
        f"{found['delta']:+.2f}",
        f"[{found['lower']:+.2f}, {found['upper']:+.2f}]",
    ]


def lines(document: dict[str, Any]) -> list[str]:
    """The figures under the table, and the verdict's reasons."""
    text = []
    if relative := document["relative_corruption_error"]:
        text.append(
            f"{relative['label']}: {relative['reference']:.2f} -> {relative['candidate']:.2f}"
        )
    top, kl = document["top1_agreement"], document["kl_nats"]
    text.append(
        f"same class: clean {100 * top['clean']:.2f}%, corrupted "
        f"{100 * top['corrupted']['estimate']:.2f}%; KL(float || bundle): clean "
        f"{kl['clean']:.2g}, corrupted {kl['corrupted']:.2g} nats"
    )
    engine = document["reference_engine"]
    if engine is not None and engine["checked_by"] is not None:
        checked, answered = engine["checked"], engine["checked"] + engine["answered"]
        text.append(
            f"{engine['answers']} answered for {engine['checked_by']}, which checked {checked:,} "
            f"of {answered:,} answers: equal, with {engine['ties']} ties"
        )
    if codes := document["codes"]:
        text += _codes(codes)
    text.append(_work(document))
    text += document["reasons"]
    if document["worst"] and document["verdict"] != "pass":
        deltas = document["per_corruption"]
        lost = (f"{name} {deltas[name]['delta']:+.2f}" for name in document["worst"])
        text.append("lost most on " + ", ".join(lost).replace("_", " "))
    return text


def _codes(codes: dict[str, Any]) -> list[str]:
    usage = codes["usage"]["reference"]
    text = [
        f"same code: clean {100 * codes['clean_agreement']:.2f}%, corrupted "
        f"{100 * codes['corrupted_agreement']['estimate']:.2f}%; {usage['used']} of "
        f"{usage['size']} codes in use, perplexity {usage['perplexity']:.0f}"
    ]
    margins = codes["margins"]
    if margins and margins["flipped"]["count"]:
        flipped, kept = margins["flipped"]["margins"][2], margins["agreeing"]["margins"]
        elsewhere = "" if kept is None else f", {kept[2]:.2g} elsewhere"
        text.append(f"median margin of the lookup: {flipped:.2g} where the code flipped{elsewhere}")
    return text


def _work(document: dict[str, Any]) -> str:
    total = document["inferences"] + document["inferences_cached"]
    text = f"{document['inferences']:,} of {total:,} inferences done now"
    text += f" in {document['seconds']:.0f} s" if document["inferences"] else ", the rest was kept"
    if document["saved"] > 0:
        text += (
            f"; the verdict came early and saved {100 * document['saved']:.0f}% of the full sweep"
        )
    return text


def sparkline(percentages: list[float]) -> str:
    """Errors of rising severity as bars, 0 to 100%."""
    return "".join(_BARS[min(7, int(value / 12.5))] for value in percentages)
