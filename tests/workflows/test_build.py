"""A plan of a build is the run without its hands: what one says is what the other does."""

from __future__ import annotations

import dataclasses
import random
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

import edgekit.export.exporter
import edgekit.quantize.calibrate
import edgekit.steps.benchmark
import edgekit.steps.bundling
import edgekit.workflows.parity
from edgekit.bundle.store import open_bundle, update_bundle
from edgekit.cli.build import build as command
from edgekit.core.console import Console
from edgekit.core.errors import UsageError
from edgekit.steps.config import BuildConfig
from edgekit.steps.context import Context
from edgekit.steps.step import State, Step, look_at, walk
from edgekit.steps.step_names import StepName
from edgekit.workflows.build import BuildPlan, build, plan
from tests.cross_compiled import compile_for_arm, compile_nothing, only_on_x86
from tests.training.training_data import CLASSES, QUIET
from tests.workflows.small_build import ELSEWHERE, HERE, settings


class Toy(Step[int]):
    """A step that leaves a number behind, in a dictionary that outlives the build."""

    def __init__(self, context: Context, number: int, shelf: dict[int, int], *after: Step[Any]):
        super().__init__(context, *after)
        self.number, self.shelf, self.runs = number, shelf, 0
        self.name = NAMES[number % len(NAMES)]

    def _stored(self) -> int | None:
        return self.shelf.get(self.number)

    def _make(self) -> int:
        self.runs += 1
        self.shelf[self.number] = sum(step.result for step in self.after) + 1
        return self.shelf[self.number]


NAMES: tuple[StepName, ...] = ("load", "export", "calibrate", "compile", "bench", "parity")


@pytest.mark.parametrize("seed", range(60))
def test_a_look_says_what_the_walk_does(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    count = chance.randint(1, 9)
    after = [[j for j in range(i) if chance.random() < 0.4] for i in range(count)]
    shelf = {i: 0 for i in range(count) if chance.random() < 0.6}
    forced = frozenset(name for name in NAMES if chance.random() < 0.1)

    def steps() -> list[Toy]:
        made: list[Toy] = []
        for i in range(count):
            before = [made[j] for j in after[i]]
            made.append(Toy(Context(QUIET, tmp_path, forced), i, shelf, *before))
        return made

    looked, walked = steps(), steps()
    look_at(looked)
    assert not any(step.runs for step in looked)
    walk(walked)
    assert [step.state for step in walked] == [step.state for step in looked]
    assert [step.runs for step in walked] == [int(step.state == "to do") for step in looked]
    again = steps()
    walk(again)
    assert [step.runs for step in again] == [
        int(bool(forced) and step.state == "to do") for step in again
    ]


@pytest.fixture
def works(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The steps that did their work, noted where the work is done."""
    done: list[str] = []

    def note(step: str, module: Any, name: str) -> None:
        real: Callable[..., Any] = getattr(module, name)

        def noted(*arguments: Any, **options: Any) -> Any:
            done.append(step)
            return real(*arguments, **options)

        monkeypatch.setattr(module, name, noted)

    note("export", edgekit.export.exporter, "export_onnx")
    note("calibrate", edgekit.quantize.calibrate, "calibrate")
    note("compile", edgekit.steps.bundling, "compiler")
    note("bench", edgekit.steps.benchmark, "time_in_turns")
    note("parity", edgekit.workflows.parity, "run_comparison")
    return done


def states(planned: BuildPlan) -> dict[str, State]:
    return {f"{step.step} {step.target}".strip(): step.state for step in planned.steps}


def test_the_plan_is_what_the_run_does(
    model: Path, cache: Path, works: list[str], tmp_path: Path
) -> None:
    """One run after the other, each with other flags, where the last ones have left something."""
    out = tmp_path / "out"
    neither = {"bench": False, "parity": False}
    both = {"target": (HERE, ELSEWHERE)}
    runs: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {}),
        ({}, {}),
        ({}, {"only": "parity"}),
        ({}, {"only": "bench"}),
        (neither, {}),
        (neither | both, {"only": "calibrate"}),
        (neither | both, {}),
        (neither | both, {"force": True}),
        ({"parity": False} | both, {"only": "bench"}),  # what it follows from comes first
        (neither | {"precision": "fp32"}, {"only": "load"}),
        (neither | {"seed": 1}, {}),
        (neither | {"seed": 1, "zip": True}, {}),
    ]
    for changes, flags in runs:
        config = settings(model, out, **changes)
        planned = plan(config, QUIET, **flags)
        assert works == [], (changes, flags)
        build(config, QUIET, **flags)
        expected = [step.step for step in planned.steps if step.state == "to do"]
        assert works == expected, (changes, flags)
        works.clear()
    assert (out / f"{HERE}.zip").exists()


def test_what_a_plan_says(model: Path, empty: Path, tmp_path: Path) -> None:
    both = settings(model, tmp_path / "out", target=(HERE, ELSEWHERE))
    todo: dict[str, State] = {
        "load": "given",
        "export": "to do",
        f"calibrate {HERE}": "to do",
        f"compile {HERE}": "to do",
        f"bench {HERE}": "to do",
        f"parity {HERE}": "to do",
        f"calibrate {ELSEWHERE}": "cached",  # by then: both calibrate alike
        f"compile {ELSEWHERE}": "to do",
        f"bench {ELSEWHERE}": "not measured here",
        f"parity {ELSEWHERE}": "not measured here",
        f"graph-parity {ELSEWHERE}": "to do",
    }
    planned = plan(both, QUIET)
    assert states(planned) == todo
    why = {(step.why, step.writes) for step in planned.steps if step.state == "not measured here"}
    assert why == {("its engine is built on the device", "")}
    assert not empty.exists()
    assert not (tmp_path / "out").exists()
    here = dataclasses.replace(both, target=(HERE,))
    build(here, QUIET)
    at_rest = {
        "load": "given",
        "export": "up to date",
        f"calibrate {HERE}": "up to date",
        f"compile {HERE}": "up to date",
        f"bench {HERE}": "up to date",
        f"parity {HERE}": "up to date",
    }
    assert states(plan(here, QUIET)) == at_rest
    # A power cut can undo the removal of an old folder that was the run's last act.
    leftover = tmp_path / "out" / f".{HERE}.0123abcd.partial"
    leftover.mkdir()
    build(here, QUIET)
    assert not leftover.exists()
    assert states(plan(both, QUIET)) == todo | at_rest | {"export": "cached"}
    shutil.rmtree(empty)  # nobody needs it for what is whole
    assert states(plan(here, QUIET)) == at_rest
    floats = dataclasses.replace(here, precision="fp32", bench=False)
    assert list(states(plan(floats, QUIET))) == [
        "load", "export", f"compile {HERE}", f"parity {HERE}"
    ]  # fmt: skip
    with pytest.raises(UsageError, match="--only calibrate: this build has no"):
        plan(floats, QUIET, only="calibrate")


def test_a_target_that_cannot_run_here_is_up_to_date_as_well(
    model: Path, cache: Path, works: list[str], tmp_path: Path
) -> None:
    config = settings(model, tmp_path / "out", target=(ELSEWHERE,))
    assert not build(config, QUIET)[0].up_to_date
    works.clear()
    (again,) = build(config, QUIET)
    assert again.up_to_date
    assert works == []


@only_on_x86
def test_operators_for_another_processor_are_taken_along_once_they_are_there(
    model: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    config = settings(model, out, target=("openvino-arm",), bench=False, parity=False)
    line = "is not compiled for aarch64: run 'make arm-plugin' in"
    compile_nothing(monkeypatch)
    build(config, Console())
    assert capsys.readouterr().err.count(line) == 1
    assert open_bundle(out / "openvino-arm").manifest.plugins == ()
    assert build(config, Console())[0].up_to_date

    plugin = compile_for_arm(tmp_path, monkeypatch)
    assert not build(config, Console())[0].up_to_date
    assert line not in capsys.readouterr().err
    bundle = open_bundle(out / "openvino-arm", any_arch=True)
    assert (bundle.manifest.arch, bundle.manifest.plugins) == ("aarch64", (plugin.name,))
    assert build(config, Console())[0].up_to_date


def test_another_comparison_in_the_bundle_is_made_again_and_nothing_else(
    model: Path, cache: Path, works: list[str], tmp_path: Path
) -> None:
    config = settings(model, tmp_path / "out", bench=False)
    build(config, QUIET)
    works.clear()
    section = open_bundle(tmp_path / "out" / HERE).manifest.sections["parity"]
    other = {**section, "asked": {**section["asked"], "images": 3}}  # as `edgekit parity` does
    update_bundle(tmp_path / "out" / HERE, sections={"parity": other})
    assert states(plan(config, QUIET))[f"compile {HERE}"] == "up to date"
    (outcome,) = build(config, QUIET)
    assert works == ["parity"]
    assert not outcome.up_to_date
    assert build(config, QUIET)[0].up_to_date


def test_a_zip_follows_its_bundle(model: Path, cache: Path, tmp_path: Path) -> None:
    config = settings(model, tmp_path / "out", bench=False, parity=False, zip=True)
    build(config, QUIET)
    update_bundle(tmp_path / "out" / HERE, sections={"note": "written later"})
    assert not build(config, QUIET)[0].up_to_date
    zipped, folder = (open_bundle(tmp_path / "out" / name) for name in (f"{HERE}.zip", HERE))
    assert zipped.manifest.sections["note"] == folder.manifest.sections["note"]
    assert build(config, QUIET)[0].up_to_date


def test_a_calibration_reads_its_images_once(
    model: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgekit.data.arrays import NpzDataset

    digests: list[int] = []
    real = NpzDataset.digest

    def digest(dataset: NpzDataset, index: int) -> str:
        digests.append(index)
        return real(dataset, index)

    monkeypatch.setattr(NpzDataset, "digest", digest)
    options = {"parity": False, "bench": False, "target": (HERE, ELSEWHERE, "cpu")}
    build(settings(model, tmp_path / "out", **options), QUIET)
    compared = 3 + 15  # the split refuses copies of one image in calibration and test
    assert len(digests) == compared + 3, "one for each image that calibrates"


def test_the_command_in_the_manifest_builds_the_same_again(
    model: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its files are at hand, as they are in the folder of the model."""
    monkeypatch.chdir(model)
    shutil.copy("levels.npz", 'my "best" levels.npz')
    Path("class names.txt").write_text("\n".join(CLASSES))
    odd = BuildConfig(
        checkpoint="it's a model.safetensors",
        labels="class names.txt",
        data='my "best" levels.npz',
        target=(HERE,),
        out=str(tmp_path / "out"),
        recipe="tiny.toml",
        metric="code-agreement",
        guard=False,
        seed=7,
        skip_bad=True,
        bench=False,
        bench_seconds=0.125,
        parity_images=2,
        tolerance=99.5,
    )
    build(odd, QUIET)
    rebuild = open_bundle(tmp_path / "out" / HERE).manifest.rebuild
    assert rebuild.startswith(f"edgekit build --target {HERE} --checkpoint 'it'")
    again = parsed(rebuild)
    assert dataclasses.replace(again, out=odd.out) == odd
    assert build(dataclasses.replace(again, out=odd.out), QUIET)[0].up_to_date


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "edgekit build --target cpu"),
        ({"data": "/data/photos/"}, "edgekit build --target cpu --data photos"),
        ({"data": "imagenet-c:/d/c c"}, "edgekit build --target cpu --data 'imagenet-c:c c'"),
        ({"guard": False, "zip": True, "out": "x"}, "edgekit build --target cpu --no-guard"),
        ({"max_drop": 0.5}, "edgekit build --target cpu --max-drop 0.5"),
    ],
)
def test_commands(changes: dict[str, Any], expected: str) -> None:
    from edgekit.targets.descriptor import load_descriptor

    config = BuildConfig(**changes)
    assert config.command(load_descriptor("cpu")) == expected


def parsed(line: str) -> BuildConfig:
    """The settings of a command line."""
    words = shlex.split(line)
    assert words[:2] == ["edgekit", "build"]
    with click.Context(command) as context:
        command.parse_args(context, words[2:])
    names = {field.name for field in dataclasses.fields(BuildConfig)}
    given = {k: v for k, v in context.params.items() if k in names and v not in (None, ())}
    return BuildConfig(**given)
