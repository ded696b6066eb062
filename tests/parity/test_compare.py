import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError, UsageError
from edgekit.data.corruption_grid import Cells, MakeVariants
from edgekit.data.corruptions import BENCHMARK15
from edgekit.metrics.corruption_error import mce
from edgekit.parity.compare import run_comparison
from edgekit.parity.document import ParityDocument
from edgekit.parity.options import Gates, ParityOptions
from edgekit.report import parity_table
from edgekit.runtime.answers import Answers
from tests.parity.models import CELLS, CODES, PREPROCESSING, Coarse, coarse, images, sweep

QUIET = Console(verbosity=-1)
ALL = Cells(BENCHMARK15, (1, 2, 3, 4, 5))


def compare(
    cache: Path,
    candidate: Coarse,
    gates: Gates,
    count: int,
    *,
    cells: Cells = CELLS,
    full: bool = False,
    labeled: bool = True,
) -> dict[str, Any]:
    this = sweep(
        cache, coarse(), candidate, dataset=images(count), make=MakeVariants(PREPROCESSING, cells)
    )
    options = ParityOptions(gates=gates, full=full)
    return run_comparison(
        this, options, QUIET, codebook_size=CODES, labeled=labeled
    ).document.to_dict()


def document(found: dict[str, Any]) -> ParityDocument:
    return ParityDocument.from_dict(json.loads(json.dumps(found)), "this test")


def test_a_damaged_model_fails_at_once_and_says_where(tmp_path: Path) -> None:
    found = compare(tmp_path, coarse(key="blind", blind=0.7), Gates(1.0), 400)
    assert found["verdict"] == "fail"
    assert found["images"] < 60
    assert found["severities_per_image"] == 1
    assert found["inferences"] == 2 * 3 * found["images"]  # clean, and one of each corruption
    assert found["saved"] == pytest.approx(1 - found["inferences"] / (2 * 5 * 400))
    assert found["corruption_error"]["lower"] > 1
    assert found["corruption_error"]["interval"] == "anytime"
    deltas = {name: entry["delta"] for name, entry in found["per_corruption"].items()}
    assert found["worst"] == sorted(deltas, key=lambda name: -deltas[name])
    assert "lost most on" in parity_table.lines(document(found))[-1]


def test_equal_models_pass_as_soon_as_that_can_be_shown(tmp_path: Path) -> None:
    found = compare(tmp_path, coarse(key="same"), Gates(2.0), 400)
    assert (found["verdict"], found["worst"]) == ("pass", [])
    assert 180 < found["images"] < 260  # 3.7 * 100 / 2, and a little for looking early
    assert found["corruption_error"]["delta"] == 0
    assert found["top1_agreement"]["corrupted"]["estimate"] == 1
    assert found["codes"]["clean_agreement"] == 1
    assert found["kl_nats"]["corrupted"] == 0


def test_a_share_stays_a_share_when_it_is_decided_early(tmp_path: Path) -> None:
    found = compare(tmp_path, coarse(key="same"), Gates(50.0, min_agreement=0.5), 400)
    assert found["images"] < 100
    (row,) = [row for row in found["budgets"] if row["name"] == "min_agreement"]
    assert (row["state"], row["measured"], row["upper"]) == ("held", 1, 1)
    assert 0.5 < row["lower"] < 1


def test_full_and_stopped_runs_say_the_same_of_the_same_images(tmp_path: Path) -> None:
    gates, blind = Gates(1.0), coarse(key="blind", blind=0.7)
    full = compare(tmp_path, blind, gates, 60, full=True)
    assert (full["images"], full["saved"], full["mode"]) == (60, 0, "full")
    assert full["corruption_error"]["interval"] == "fixed sample"
    early = compare(tmp_path, blind, gates, 60)
    assert early["inferences"] == 0
    again = compare(tmp_path, blind, gates, early["images"], full=True)
    if early["images"] < 60:  # the first of 60 are not the first of fewer: another order
        assert again["images"] == early["images"]
    assert full["verdict"] == early["verdict"] == "fail"


def test_errors_are_those_of_a_plain_loop(tmp_path: Path) -> None:
    models = {"reference": coarse(), "candidate": coarse(key="blind", blind=0.4)}
    found = compare(tmp_path, models["candidate"], Gates(1.0), 40, full=True)
    data, make = images(40), MakeVariants(PREPROCESSING, CELLS)
    pixels = np.stack([make(data, (i, tuple(range(5)))) for i in range(40)])
    labels = np.array([data.label(i) for i in range(40)])
    errors: dict[str, NDArray[np.float64]] = {}
    for who, model in models.items():
        answers = [model.run(pixels[:, v]).logits.argmax(axis=1) for v in range(5)]
        errors[who] = np.array([(answer != labels).mean() for answer in answers])
        assert found["clean_error"][who] == pytest.approx(100 * errors[who][0])
        assert found["corruption_error"][who] == pytest.approx(100 * errors[who][1:].mean())
        relative = 100 * (errors[who][1:].mean() - errors[who][0])
        assert found["relative_corruption_error"][who] == pytest.approx(relative)
        fog = found["per_corruption"]["fog"]
        assert fog["errors"][who] == pytest.approx(100 * errors[who][3:])
        assert fog[who] == pytest.approx(100 * errors[who][3:].mean())
    delta = 100 * (errors["candidate"] - errors["reference"])[1:].mean()
    assert found["corruption_error"]["delta"] == pytest.approx(delta)


def test_undecided_says_how_many_more(tmp_path: Path) -> None:
    found = compare(tmp_path, coarse(key="blind", blind=0.13), Gates(0.5), 40)
    assert found["verdict"] == "undecided"
    assert found["images"] == 40
    assert found["more_images"] > 0
    assert re.search(r"about [\d,]+ more images like these would decide", found["reasons"][0])
    assert found["corruption_error"]["interval"] == "fixed sample"  # the last look


def test_the_last_look_may_decide_what_the_sequence_did_not(tmp_path: Path) -> None:
    candidate = coarse(key="blind", blind=0.3)
    probe = compare(tmp_path, candidate, Gates(5.0), 60, full=True)["corruption_error"]
    tolerance = probe["upper"] + 0.01
    found = compare(tmp_path, candidate, Gates(tolerance), 60)
    assert (found["verdict"], found["images"]) == ("pass", 60)
    assert found["corruption_error"]["interval"] == "fixed sample"


def test_the_code_gate(tmp_path: Path) -> None:
    blind = coarse(key="blind", blind=0.3)
    agreement = compare(tmp_path, blind, Gates(99.0), 150, full=True)["codes"]
    share = agreement["corrupted_agreement"]["estimate"]
    assert 0.05 < share < 0.95
    fails = compare(tmp_path, blind, Gates(99.0, min_code_agreement=share + 0.2), 150)
    assert fails["verdict"] == "fail"
    assert "code agreement" in fails["reasons"][-1]
    assert fails["images"] < 150
    passes = compare(tmp_path, blind, Gates(99.0, min_code_agreement=max(share - 0.2, 0.01)), 150)
    assert passes["verdict"] == "pass"


def test_the_corruption_gate(tmp_path: Path) -> None:
    blind = coarse(key="blind", blind=0.7)
    found = compare(tmp_path, blind, Gates(90.0, max_corruption_delta=1.0), 200)
    assert found["verdict"] == "fail"
    said = "; ".join(found["reasons"])
    assert re.search(r"(fog|gaussian_noise) [^;]* is beyond the maximum of 1 points", said)
    found = compare(tmp_path, coarse(key="same"), Gates(5.0, max_corruption_delta=4.0), 200)
    assert found["verdict"] == "pass"
    assert found["images"] > 100  # the second gate takes longer than the first


def test_a_candidate_that_returns_nan(tmp_path: Path) -> None:
    class Broken(Coarse):
        def run(self, pixels: NDArray[np.uint8]) -> Answers:
            answers = super().run(pixels)
            answers.logits[-1, 2] = np.nan
            return answers

    broken = Broken(coarse().means, key="broken")
    with pytest.raises(
        EdgekitError, match=r"the candidate returned NaN .* fog severity [14]"
    ) as error:
        compare(tmp_path, broken, Gates(), 20)
    assert "\n" not in str(error.value)


def test_data_without_labels(tmp_path: Path) -> None:
    blind = coarse(key="blind", blind=0.3)
    found = compare(tmp_path, blind, Gates(), 20, labeled=False)
    assert found["verdict"] == "unlabeled"
    assert found["corruption_error"] is found["per_corruption"] is None
    assert found["top1_agreement"]["corrupted"]["estimate"] < 1
    assert found["images"] == 20
    assert parity_table.rows(document(found)) == []
    assert "no labels" in parity_table.lines(document(found))[-1]
    gated = compare(tmp_path, blind, Gates(min_code_agreement=0.99), 60, labeled=False)
    assert gated["verdict"] == "fail"
    assert gated["images"] < 60
    with pytest.raises(UsageError, match="needs labels"):
        compare(tmp_path, blind, Gates(max_corruption_delta=1), 20, labeled=False)


def test_codes_of_different_checkpoints_are_not_compared(tmp_path: Path) -> None:
    other = coarse(key="other", source="bead", blind=0.1)
    found = compare(tmp_path, other, Gates(90), 10)
    assert found["codes"] is None
    assert found["same_source"] is False
    with pytest.raises(UsageError, match="no codes to compare"):
        compare(tmp_path, other, Gates(min_code_agreement=0.9), 10)


def test_the_mean_is_alexnets_for_1000_classes_and_all_severities_only(tmp_path: Path) -> None:
    means = np.random.default_rng(0).integers(0, 9000, (1000, 64))
    many = Coarse(means)
    this = sweep(
        tmp_path,
        many,
        dataclasses.replace(many, key="two"),
        dataset=images(4),
        make=MakeVariants(PREPROCESSING, ALL),
    )
    options = ParityOptions(gates=Gates(90))
    found = run_comparison(this, options, QUIET).document.to_dict()
    error = found["corruption_error"]
    assert (error["baseline"], error["label"]) == ("alexnet", "mCE")
    cells = {
        name: {s: e / 100 for s, e in zip(range(1, 6), entry["errors"]["candidate"], strict=True)}
        for name, entry in found["per_corruption"].items()
    }
    assert error["candidate"] == pytest.approx(mce(cells, "alexnet").value_percent)
    unnormalized = dataclasses.replace(options, normalize_by="none")
    plain = run_comparison(this, unnormalized, QUIET).document.corruption_error
    assert plain is not None
    assert (plain.baseline, plain.label) == ("none", "unnormalized mCE")
    assert plain.candidate != pytest.approx(error["candidate"])
    part = dataclasses.replace(this, make=MakeVariants(PREPROCESSING, CELLS))
    mean = run_comparison(part, options, QUIET).document.corruption_error
    assert mean is not None
    assert mean.label == "unnormalized mCE over 2 corruptions at severities 1,4"


def test_extra_corruptions_are_listed_and_not_averaged(tmp_path: Path) -> None:
    cells = Cells(("fog", "saturate"), (1, 4))
    found = compare(tmp_path, coarse(key="blind", blind=0.7), Gates(50), 20, cells=cells, full=True)
    fog = found["per_corruption"]["fog"]
    assert found["corruption_error"]["candidate"] == pytest.approx(fog["candidate"])
    assert (fog["averaged"], found["per_corruption"]["saturate"]["averaged"]) == (True, False)
    names = [row[0] for row in parity_table.rows(document(found))]
    assert names[1:3] == ["fog", "saturate (not averaged)"]


def test_too_few_images_and_impossible_gates(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has 1 test image, parity needs 2"):
        compare(tmp_path, coarse(key="one"), Gates(), 1)
    for gates in ({"min_code_agreement": 1.0}, {"tolerance": -1}, {"max_corruption_delta": -2}):
        with pytest.raises(UsageError):
            Gates(**gates)
    with pytest.raises(UsageError):
        Gates(float("nan"))


def test_the_table(tmp_path: Path) -> None:
    found = compare(tmp_path, coarse(key="blind", blind=0.7), Gates(1.0), 60, full=True)
    assert parity_table.header(document(found))[0] == "trained with seen=none"
    rows = parity_table.rows(document(found))
    assert [row[0] for row in rows] == [
        *("clean", "gaussian noise", "fog"),
        "unnormalized mCE",
    ]
    assert rows[-1][-1] == "fail"
    assert all(len(row) == len(parity_table.head(document(found)).columns) for row in rows)
    assert len(rows[1][5]) == 2  # a bar for each severity
    assert parity_table.sparkline([0, 12.5, 50, 100]) == "▁▂▅█"


def test_every_field_of_the_report_is_documented(tmp_path: Path) -> None:
    found = compare(tmp_path, coarse(key="blind", blind=0.3), Gates(1.0), 20)
    page = (Path(__file__).parents[2] / "docs/parity.md").read_text(encoding="utf-8")
    for name in keys(json.loads(json.dumps(found))):
        assert f"`{name}`" in page, f"docs/parity.md does not explain {name}"


def keys(value: Any) -> set[str]:
    if not isinstance(value, dict):
        return set()
    names = {name for name in value if name not in BENCHMARK15}
    return names.union(*(keys(inner) for inner in value.values()))
