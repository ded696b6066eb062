"""Two bundles, or two training runs, side by side."""

import base64
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgekit.bundle.manifest import LABELS
from edgekit.bundle.store import open_bundle, update_bundle, write_bundle, zip_bundle
from edgekit.core.typed_toml import to_toml
from edgekit.parity.document import GRAPH_FILE, GRAPH_SECTION, ParityDocument
from edgekit.parity.examples import EXAMPLES, Answered, Example, ExampleCell, Examples, Picture
from edgekit.quantize.qat.config import FinetuneConfig
from edgekit.report.compare_bundles import compare_bundles
from edgekit.report.compared import ComparedReport
from edgekit.training.config import TrainConfig
from tests import bundles, commands, terminals
from tests.parity import example as parity_example
from tests.report.test_several import measure


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """The same bundle twice, measured."""
    folder = tmp_path / "a"
    shutil.copytree(bundles.bundle("cpu", "inline"), folder)
    measure(folder)
    shutil.copytree(folder, tmp_path / "b")
    return folder, tmp_path / "b"


def run(capsys: pytest.CaptureFixture[str], *words: object) -> commands.Ended:
    return commands.run(capsys, "compare", *words)


def repacked(path: Path, labels: tuple[str, ...] | None = None, **changes: Any) -> None:
    """The same model under another manifest."""
    bundle = open_bundle(path)
    contents: dict[str, Path | bytes] = {
        name: (bundle.folder / name).read_bytes()
        for name in bundle.manifest.files
        if name != LABELS
    }
    manifest = dataclasses.replace(bundle.manifest, **changes)
    write_bundle(path, manifest, contents, labels or bundle.labels)


def facts(report: ComparedReport) -> dict[str, tuple[str | None, str | None]]:
    return {f"{one.subject} {one.name}".strip(): (one.a, one.b) for one in report.differences}


def test_identical_bundles_are_one_line(
    pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    line = "identical: the same model, files and evidence\n"
    assert run(capsys, *pair) == (0, line, "")
    packed = pair[1].with_suffix(".zip")
    zip_bundle(pair[1], packed)
    assert run(capsys, pair[0], packed) == (0, line, "")
    code, out, _ = run(capsys, *pair, "--json")
    document = json.loads(out)
    assert code == 0
    assert document["identical"] is True
    assert document["same_model"] is True
    assert document["differ"] == document["differences"] == document["notes"] == []
    assert all(one["difference"] in (0, None) for one in document["figures"])


def test_a_graphs_parity_has_figures_of_its_own(
    pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    graph = parity_example.document(judged="graph")
    text = json.dumps(graph.to_dict()).encode()
    update_bundle(pair[1], sections={GRAPH_SECTION: graph.summary()}, reports={GRAPH_FILE: text})
    code, out, _ = run(capsys, *pair, "--json")
    assert code == 0
    report = json.loads(out)
    assert report["differences"] == []
    assert report["differ"] == ["graph's parity"]
    own = {one["name"]: one["a"] for one in report["figures"] if one["subject"] == "parity"}
    of_graph = {
        one["name"].removeprefix("the graph's "): (one["a"], one["b"])
        for one in report["figures"]
        if one["subject"] == "graph's parity"
    }
    assert of_graph == {name: (None, value) for name, value in own.items()}
    assert {"clean error", "error under fog"} <= own.keys()


def test_graphs_compared_on_different_images_are_not_comparable(pair: tuple[Path, Path]) -> None:
    for path, data in zip(pair, ("photos", "other photos"), strict=True):
        graph = parity_example.document(judged="graph", data=data)
        update_bundle(path, sections={GRAPH_SECTION: graph.summary()})
    (note,) = compare_bundles(*pair).notes
    assert note.startswith("Errors are of different images")


def test_the_images_of_the_page_are_compared_by_name(pair: tuple[Path, Path]) -> None:
    parity = parity_example.document()
    for path, name in zip(pair, ("cat.jpg", "dog.jpg"), strict=True):
        update_bundle(path, reports={EXAMPLES: json.dumps(shown(name, parity)).encode()})
    assert facts(compare_bundles(*pair)) == {"test images": ("cat.jpg", "dog.jpg")}
    update_bundle(pair[1], reports={EXAMPLES: None})
    assert facts(compare_bundles(*pair)) == {"test images": ("cat.jpg", None)}


def shown(name: str, parity: ParityDocument) -> dict[str, Any]:
    """The document about a single image on a bundle's page."""
    answer = Answered("cat", 0.5, right=True)
    picture = Picture(base64.b64encode(b"\xff\xd8\xff").decode(), 1, 1, answer, answer, None)
    example = Example(name, "fog", 3, "cat", picture, picture)
    return Examples(parity.measured, (ExampleCell("worst", "fog", 3, 0.5, (example,)),)).to_dict()


def test_other_evidence_of_the_same_model(
    pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    error = parity_example.document().corruption_error
    assert error is not None
    measure(
        pair[1],
        verdict="pass",
        corruption_error=dataclasses.replace(error, candidate=20.4, delta=0.4, lower=0.1),
        warnings=("a document of another length",),
    )
    code, out, err = run(capsys, *pair)
    lines = out.splitlines()
    assert code == 0
    assert lines[0] == "what runs is the same; different: verdict, parity"
    assert lines[1:3] == [f"A  {pair[0]}", f"B  {pair[1]}"]
    found = {" ".join(line.split()) for line in lines}
    assert "verdict Do not ship Ship" in found
    assert "corruption error, % 21.50 20.40 -1.10" in found
    assert (
        "change of corruption error, points +1.50 [+1.00, +2.00] +0.40 [+0.10, +2.00] -1.10"
        in found
    )
    assert "latency p50, ms 1.00 1.00 same" in found
    text = " ".join(out.split())
    assert f"'edgekit parity {pair[1]} --baseline {pair[0]}' measures it" in text
    assert "edgekit bench" not in text
    assert "error under fog" not in out
    assert "-v shows the error under each corruption" in err
    _, out, err = run(capsys, *pair, "-v")
    assert "error under fog, %" in out
    assert "-v shows" not in err


def test_every_kind_of_difference_is_told(pair: tuple[Path, Path]) -> None:
    a = open_bundle(pair[0])
    source = dataclasses.replace(a.manifest.source, checkpoint="ab" * 32, recipe="cd" * 32)
    repacked(pair[0], rebuild="edgekit build --target cpu --recipe clean --no-guard")
    repacked(
        pair[1],
        labels=("cat", *a.labels[1:]),
        source=source,
        versions={**a.manifest.versions, "nncf": "9.9"},
        target=dataclasses.replace(a.manifest.target, threads=3),
        rebuild="edgekit build --target cpu --recipe robust --data '/photos of cats'",
        sections={**a.manifest.sections, "guard": {"passed": True, "views": 36}},
    )
    report = compare_bundles(*pair)
    told = facts(report)
    assert told["classes only there"] == (a.labels[0], "cat")
    assert told["model checkpoint"] == (None, "ab" * 32)
    assert told["recipe SHA-256"] == (None, "cd" * 32)
    assert told["versions nncf"] == (a.manifest.versions["nncf"], "9.9")
    assert told["target threads"] == ("0", "3")
    assert told["options --recipe"] == ("clean", "robust")
    assert told["options --no-guard"] == ("given", None)
    assert told["options --data"] == (None, "/photos of cats")
    assert told["guard views"] == (None, "36")
    assert not any(name.startswith("weights") for name in told)
    assert not report.same_model
    assert report.differ[0] == "classes"
    assert {"model", "recipe", "versions", "target", "options", "guard"} <= set(report.differ)
    assert not any("parity" in note for note in report.notes), "other classes are not comparable"


def test_other_weights_and_sizes(pair: tuple[Path, Path]) -> None:
    other = bundles.bundle("onnxruntime-cpu", "inline")
    report = compare_bundles(pair[0], other)
    told = facts(report)
    assert told["target"] == ("cpu", "onnxruntime-cpu")
    assert told["weights model.onnx"][0] is None
    assert told["verdict"][1] == "Not decided yet (robustness not measured)"
    assert report.differ[0] == "target"
    sizes = {one.name: one for one in report.figures if one.subject == "size"}
    needed = sizes["what runs"]
    assert needed.a is not None
    assert needed.b is not None
    assert needed.difference == needed.b.value - needed.a.value != 0
    latency = next(one for one in report.figures if one.name == "latency p50")
    assert (latency.b, latency.difference) == (None, None)


def test_the_order_of_classes(pair: tuple[Path, Path]) -> None:
    names = open_bundle(pair[0]).labels
    repacked(pair[1], labels=(names[0], names[2], names[1], *names[3:]))
    report = compare_bundles(*pair)
    assert facts(report) == {"classes order, from 1": (names[1], names[2])}


def test_what_is_not_compared_is_not_called_identical(
    pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    update_bundle(pair[1], reports={"report.html": b"<p>"})
    _, out, _ = run(capsys, *pair)
    assert out.splitlines()[0] == "what runs is the same; different: details of the evidence"


@pytest.mark.parametrize("width", [40, 80, 120])
def test_it_fits_the_terminal(
    pair: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    width: int,
) -> None:
    measure(pair[1], data="other photos")
    monkeypatch.chdir(pair[0].parent)
    repacked(pair[1], rebuild="edgekit build --target cpu --recipe robust")
    terminals.pretend(monkeypatch, width)
    code, out, _ = run(capsys, "a", "b")
    lines = terminals.uncolored(out).splitlines()
    assert code == 0
    assert max(map(len, lines)) <= width
    assert "Errors are of different images" in " ".join(" ".join(lines).split())


def test_what_is_no_bundle(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("no bundle")
    write_run(tmp_path / "run")
    for other, message in (
        (tmp_path / "absent", "does not exist"),
        (tmp_path, "is not a bundle"),
        (file, "notes.txt"),
        (tmp_path / "run", "name two of the same kind"),
    ):
        for words in ((pair[0], other), (other, pair[0])):
            code, out, err = run(capsys, *words)
            assert (code, out) == (2, "")
            assert message in err
            assert len(err.splitlines()) == 1


def write_run(folder: Path, errors: tuple[float, ...] = (0.3, 0.2, 0.25), **settings: Any) -> None:
    """What `edgekit train` leaves: the best epoch is that with the least error."""
    folder.mkdir(exist_ok=True)
    config = TrainConfig(out=folder, **settings)
    (folder / "config.toml").write_text(to_toml(config))
    events: list[dict[str, Any]] = [{"event": "start", "phases": {}, "processes": 1, "seed": 0}]
    least = 1.0
    for number, error in enumerate(errors):
        validation = {
            "images": 300,
            "clean_error": error / 2,
            "corruption_errors": {"fog": error},
            "mean_corruption_error": error,
            "used_codes": 32,
            "code_perplexity": 30.0,
            "code_agreement": 0.5,
        }
        epoch = {"epoch": number + 1, "seconds": 2.0, "validation": validation}
        events.append({"event": "epoch", **epoch, "best": error < least})
        least = min(least, error)
    (folder / "log.jsonl").write_text("".join(f"{json.dumps(event)}\n" for event in events))
    if errors:
        (folder / "best.safetensors").write_bytes(repr(errors).encode())


def test_two_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "one")
    write_run(tmp_path / "two")
    runs = tmp_path / "one", tmp_path / "two"
    assert run(capsys, *runs) == (0, "identical: the same settings and results\n", "")
    write_run(tmp_path / "two", errors=(0.3, 0.2, 0.16), lr=0.5, codebook_size=64)
    code, out, _ = run(capsys, *runs, "-v")
    found = [" ".join(line.split()) for line in out.splitlines()]
    assert code == 0
    assert found[0] == "different: settings, checkpoint, validation"
    assert f"settings: lr {TrainConfig().lr} 0.5" in found
    assert "settings: codebook_size 256 64" in found
    assert not any("settings: out" in line for line in found)
    assert "best epoch 2 3 +1" in found
    assert "mean corruption error, % 20.00 16.00 -4.00" in found
    assert "error under fog, % 20.00 16.00 -4.00" in found
    assert "do not compare" not in out
    write_run(tmp_path / "two", data_seed=7)
    _, out, _ = run(capsys, *runs)
    assert "do not compare them" in out


def test_unfinished_and_damaged_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "one")
    write_run(tmp_path / "two", errors=())
    runs = tmp_path / "one", tmp_path / "two"
    code, out, _ = run(capsys, *runs, "--json")
    document = json.loads(out)
    assert code == 0
    assert document["kind"] == "runs"
    best = next(one for one in document["figures"] if one["name"] == "best epoch")
    assert (best["a"]["value"], best["b"], best["difference"]) == (2, None, None)
    for content, message in (
        ("{", "is not JSON"),
        ("3\n", "is not an object"),
        ('{"event": "epoch", "epoch": 1, "best": true}\n', "must be an object"),
        ('{"event": "epoch", "epoch": "x"}\n', "must be a whole number"),
    ):
        (tmp_path / "two" / "log.jsonl").write_text(content)
        code, out, err = run(capsys, *runs)
        assert (code, out) == (2, "")
        assert message in err


def test_a_training_and_a_finetuning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "one")
    write_run(tmp_path / "two")
    calibrated = {
        "images": 40, "clean_error": 0.2, "float_clean_error": 0.19, "mean_corruption_error": 0.3,
        "float_mean_corruption_error": 0.28, "code_agreement_clean": 0.9,
        "code_agreement_corrupted": 0.8, "top1_agreement": 0.95,
    }  # fmt: skip
    for name in ("two", "three"):
        (tmp_path / name).mkdir(exist_ok=True)
        config = FinetuneConfig(dialect="openvino", out=tmp_path / name)
        (tmp_path / name / "config.toml").write_text(to_toml(config))
        (tmp_path / name / "log.jsonl").write_text("")  # calibration is being validated
    code, out, err = run(capsys, tmp_path / "one", tmp_path / "two")
    assert (code, out) == (2, "")
    one, two = f"{tmp_path / 'one'} holds a run of 'edgekit train'", f"{tmp_path / 'two'} one of"
    assert f"{one}, {two} 'edgekit finetune': name two of the same kind" in err
    runs = tmp_path / "two", tmp_path / "three"
    assert run(capsys, *runs)[1] == "identical: the same settings and results\n"
    for folder, seen in zip(runs, (["fog"], ["fog", "snow"]), strict=True):
        start = {"event": "start", "calibrated": calibrated, "validated_on": seen, "seed": 0}
        (folder / "log.jsonl").write_text(json.dumps(start))
        (folder / "model-int8.onnx").write_text(seen[-1])
    _, out, _ = run(capsys, *runs)
    assert "same class as the float model, %" in out
    assert "do not compare them" in out  # each checkpoint brings its own corruptions
    (tmp_path / "two" / "log.jsonl").write_text('{"event": "start", "calibrated": 3}')
    assert "what calibration achieved must be an object" in run(capsys, *runs)[2]
