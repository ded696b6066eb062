"""The campaign sees every kind of fault; and a few cases of each of its hazards."""

import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hostile.campaign import case, faulty, operators
from tests.hostile.campaign.case import ROOT, Ended, Hazard, Verdict, judge, run_limited
from tests.hostile.campaign.forked import Forked, server
from tests.hostile.campaign.registry import hazards
from tests.hostile.campaign.runner import run_case, run_for

FAULTS = {
    "traceback": "KeyError: 'surprise'",
    "swallowed_traceback": "Traceback",
    "hang": "ran longer than 0.5 s",
    "spin": "ran longer than 0.5 s",
    "memory": "took more than 300 MB",
    "burst": "MB",
    "child_memory": "took more than 300 MB",
    "outside": "changed stray",
    "far_outside": "changed ../stray",
    "home": "changed home/intel",
    "temporary": "changed tmp/left",
    "crash": "SIGSEGV",
    "code": "exit code 1",
    "silent": "exit code 2 without its line",
    "escape": "raw control character",
    "left": "left processes behind",
    "warning": "UserWarning",
}


def real(name: str, folder: Path) -> Ended:
    work = folder / "work"
    work.mkdir(parents=True)
    seconds = 0.5 if name in ("hang", "spin") else 60.0
    command = [sys.executable, "-m", "tests.hostile.campaign.faulty", name]
    return run_limited(
        command, cwd=work, seconds=seconds, megabytes=300, env={"PYTHONPATH": str(ROOT)}
    )


def forked(name: str, folder: Path) -> Ended:
    (folder / "work").mkdir(parents=True)
    seconds = 0.5 if name in ("hang", "spin") else 60.0
    function = f"{faulty.__name__}:main"
    return server().run([name], folder / "work", seconds=seconds, megabytes=300, function=function)


@pytest.mark.parametrize("run", [real, forked])
@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_seen(
    name: str, run: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(run)
    monkeypatch.setattr(case, "HELPERS_GO", 1.0)
    verdict = judge(run(name, tmp_path / "campaign" / "case"))
    assert verdict.kind == "fault"
    assert FAULTS[name] in verdict.detail


@pytest.mark.parametrize("run", [real, forked])
def test_what_is_right_is_no_fault(run: object, tmp_path: Path) -> None:
    assert callable(run)
    assert judge(run("well", tmp_path / "a")) == Verdict("passed", "")
    said = "2: error: x is no bundle: give one"
    assert judge(run("line", tmp_path / "b")) == Verdict("refused", said)


def test_memory_of_whoever_starts_it_is_not_counted(tmp_path: Path) -> None:
    mine = bytearray(b"x" * (400 << 20))
    ended = real("well", tmp_path / "a")
    assert mine
    assert ended.megabytes < 100


def test_inputs_that_a_command_changes_are_seen(tmp_path: Path) -> None:
    def prepare(draw: object, work: Path) -> list[str]:
        (work / "outside").mkdir()
        return ["outside"]

    hazard = Forked("x", prepare, function="tests.hostile.test_campaign:_touch")
    assert "changed work/new" in run_case(hazard, 1, tmp_path / "a").detail
    free = Forked("x", prepare, function="tests.hostile.test_campaign:_touch", writes=("new",))
    assert run_case(free, 1, tmp_path / "b").kind == "passed"


def _touch(words: list[str]) -> None:
    Path("new").write_text("x")


class Sometimes:
    """At fault with every third seed, and broken itself with every seventh."""

    name = "sometimes: at fault"

    def run(self, seed: int, folder: Path) -> Verdict:
        (folder / "input").write_text(str(seed))
        if seed % 7 == 0:
            raise KeyError(seed)
        return Verdict("fault", "third") if seed % 3 == 0 else Verdict("passed", "")


def test_faults_are_kept_and_counted(tmp_path: Path) -> None:
    heard: list[int] = []
    counts = run_for(
        [Sometimes()], 1, 0.01, tmp_path / "scratch", tmp_path / "faults",
        lambda hazard, seed, verdict, counts: heard.append(seed),
    )  # fmt: skip
    count = counts["sometimes: at fault"]
    assert heard == list(range(1, count.cases + 1))
    assert count.cases == count.passed + count.faults
    assert count.faults == len([s for s in heard if s % 3 == 0 or s % 7 == 0])
    kept = tmp_path / "faults" / "sometimes-at-fault-3"
    assert (kept / "input").read_text() == "3"
    assert '"seed": 3' in (kept / "fault.json").read_text()
    assert "KeyError: 7" in (kept.with_name("sometimes-at-fault-7") / "fault.json").read_text()


@pytest.fixture(scope="module")
def tool() -> Callable[[list[str]], int]:
    """The main function of tools/campaign.py, which is no package."""
    main: Callable[[list[str]], int] = runpy.run_path(str(ROOT / "tools" / "campaign.py"))["main"]
    return main


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "nope", "--minutes", "1"], "no such hazard"),
        (["--only", "images"], "either --minutes or --seed"),
    ],
)
def test_the_tool_refuses(
    words: list[str],
    said: str,
    tool: Callable[[list[str]], int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stop:
        tool(words)
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


def test_the_tool_replays(
    tool: Callable[[list[str]], int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--only", "images: predict", "--seed", "1", "--faults", str(tmp_path)]
    assert tool(words) == 0
    assert re.match(r"images: predict 1: (passed|refused): ", capsys.readouterr().out)


# Graphs belong to the disturbances, as a case takes seconds; but this file's fork server does them.
QUICK = [*hazards(), *operators.HAZARDS]


@pytest.mark.parametrize("hazard", QUICK, ids=lambda hazard: hazard.name)
def test_a_fixed_seed(hazard: Hazard, tmp_path: Path) -> None:
    verdict = run_case(hazard, 1, tmp_path / "scratch")
    assert verdict.kind != "fault", verdict.detail
