"""``edgekit build``: takes options, prints a summary table."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from edgekit.cli.common import Command, OutputFile, common
from edgekit.cli.gate import OF_BENCH, fail_unless_held, gate_options, take_gate
from edgekit.core.console import Console
from edgekit.core.errors import UsageError
from edgekit.core.packages import BUILD
from edgekit.core.tables import Column, Table
from edgekit.parity.tolerance import TOLERANCE
from edgekit.quantize.metric import METRIC, Metric
from edgekit.steps.config import BuildConfig
from edgekit.steps.step_names import StepName

if TYPE_CHECKING:
    from edgekit.bench.interleaved import Ratio
    from edgekit.parity.document import MeanError, OfBoth
    from edgekit.report.gate import GateReport
    from edgekit.steps.build_record import Outcome
    from edgekit.workflows.build import PlannedStep

_NOT_PASSED = ("fail", "undecided", "unlabeled")


@click.command(
    cls=Command,
    prints=(
        "build",
        "build-plan",
    ),
    short_help="Turn a checkpoint into a verified INT8 bundle per target.",
    needs=BUILD,
    examples="""
    edgekit build
    edgekit build --checkpoint best.pth --data ./photos --target cpu
    edgekit build --checkpoint resnet18.pth --data ./photos --labels names.txt
    edgekit build --config build.toml --recipe robust --out build/robust
    edgekit build --baseline previous --max-latency-ratio 0.6 --max-mb 30
    edgekit build --budgets budgets.toml --summary summary.md --junit build.xml
    edgekit build --dry-run
    """,
)
@click.option(
    "--checkpoint", help="Trained model, with codes or without; default: the built-in one."
)
@click.option("--backbone", help="Whose weights they are, if timm:NAME or module:function.")
@click.option("--labels", help="Text file, one class name per line.")
@click.option("--data", help="Images: folder, .npz, .csv, .jsonl, URL or builtin:fashion-mnist.")
@click.option("--target", multiple=True, help="Target device, repeatable; see 'edgekit targets'.")
@click.option("--out", help=f"Folder for the bundles, one per target.  [{BuildConfig.out}]")
@click.option(
    "--recipe", help="Calibration recipe: default, stratified, controlled, clean, fast or a file."
)
@click.option("--quantized", help="The checkpoint's fine-tuned INT8 graph; skips calibration.")
@click.option("--max-drop", type=float, help="Points INT8 may lose before layers stay in float.")
@click.option(
    "--metric",
    type=click.Choice(get_args(Metric)),
    help=f"Unit of --max-drop.  [{METRIC}]",
)
@click.option(
    "--precision", type=click.Choice(["auto", "int8", "fp32"]), help="Precision of the weights."
)
@click.option("--seed", type=int, help="Seed of the split and of every choice of images.")
@click.option(
    "--tolerance",
    type=float,
    help=f"Parity gate, points of corruption error; max_drop in [budgets].  [{TOLERANCE}]",
)
@click.option("--baseline", help="Earlier bundle, or folder of them, not to be worse than.")
@gate_options("min_agreement", "max_scores_rms", "max_latency_ratio", "max_mb", "max_regression")
@click.option("--parity-images", type=int, help="Most test images to use; 0 for all.")
@click.option("--bench-seconds", type=float, help="Time for the latency comparison.")
@click.option("--skip-bad/--no-skip-bad", default=None, help="Leave unreadable images out.")
@click.option("--zip/--no-zip", default=None, help="Write each bundle as a .zip, too.")
@click.option("--bench/--no-bench", default=None, help="Measure latency.")
@click.option("--parity/--no-parity", default=None, help="Compare robustness with the original.")
@click.option(
    "--watch/--no-watch",
    default=None,
    help="Prepare the bundle for 'edgekit watch'; default: if there are enough images.",
)
@click.option(
    "--watch-images",
    type=int,
    help="Most images to use for that.  [2000, or fewer if the model is expensive]",
)
@click.option(
    "--guard/--no-guard",
    default=None,
    help="Refuse an INT8 model whose answers differ from float's.  [guard]",
)
@click.option(
    "--selftest-photos/--no-selftest-photos",
    default=None,
    help="Put coarse mosaics of some of your images into the self-test.  [selftest-photos]",
)
@click.option(
    "--images/--no-images",
    default=None,
    help="Show six test images, corrupted, on the report.  [images]",
)
@click.option(
    "--plugin", help="TensorRT plugin, compiled for the device, to include in the bundle."
)
@click.option(
    "--require-engine/--no-require-engine",
    default=None,
    help="Exit with 4 if a TensorRT engine can only be built on its device.",
)
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="TOML file.")
@click.option("--save-config", type=OutputFile(), help="Write the settings used, as TOML.")
@click.option("--on", help="Calibrate and compare on Ray: ray, or ray:ADDRESS of a cluster.")
@click.option("--dry-run", is_flag=True, help="Show the steps and their state, run nothing.")
@click.option("--force", is_flag=True, help="Run every step again.")
@click.option(
    "--only", type=click.Choice(get_args(StepName)), help="Run one step again, and those after it."
)
@common
def build(
    console: Console,
    config_file: Path | None,
    save_config: Path | None,
    dry_run: bool,
    force: bool,
    only: StepName | None,
    on: str | None,
    **options: Any,
) -> None:
    """Turn a checkpoint into a verified INT8 bundle per target, with benchmark and parity.

    Without options: the built-in model and images, for this machine's CPU.
    """
    from edgekit.bundle.engine import engine_pending
    from edgekit.bundle.store import open_bundle
    from edgekit.core.typed_toml import read_toml
    from edgekit.parity.ray_cluster import executor_on
    from edgekit.steps.build_report import BuildReport, BuiltBundle
    from edgekit.workflows.build import build as run
    from edgekit.workflows.build import plan
    from edgekit.workflows.build_gate import (
        check_earlier,
        compare_with_earlier,
        judge_build,
        with_default,
    )

    gate = take_gate(options)
    base = read_toml(config_file, BuildConfig) if config_file else BuildConfig()
    gate = dataclasses.replace(gate, shared=gate.shared.over(base.budgets))
    given = {name: value for name, value in options.items() if value not in (None, ())}
    config = dataclasses.replace(base, **given, budgets=gate.options.over(gate.shared))
    if config.checkpoint is not None and config_file is None and "data" not in given:
        raise UsageError(
            f"--data is missing: name the images that calibrate and judge {config.checkpoint} "
            f"({config.data} is edgekit's own)"
        )
    budgets, left_out = gate.judged(_unable(config))
    check_earlier(config)
    gate.check(
        [Path(config.out) / target for target in config.target], **{"save-config": save_config}
    )
    if save_config is not None:
        _save(config, save_config, console)
    if dry_run:
        planned = plan(config, console, force=force, only=only)
        console.document(planned)
        console.table(PLAN, [_plan_row(step) for step in planned.steps])
        return
    executor = click.get_current_context().with_resource(executor_on(on, console))
    outcomes = run(config, console, force=force, only=only, executor=executor)
    budgets = with_default(config, budgets)
    earlier = compare_with_earlier(config, outcomes, budgets, console)
    judged = judge_build(config, outcomes, budgets, left_out, earlier)
    bundles = tuple(BuiltBundle(each, earlier.get(each.target)) for each in outcomes)
    console.document(BuildReport(bundles, judged.section()))
    console.table(SUMMARY, [_row(outcome) for outcome in outcomes])
    judged.show(console)
    for outcome in outcomes:
        state = "up to date" if outcome.up_to_date else "built"
        console.info(f"{outcome.target}: {state}: {outcome.path}")
        if engine_pending(open_bundle(outcome.path, any_arch=True).manifest):
            console.info(_still_to_do(outcome))
    gate.write(judged, console)
    fail_unless_held(judged, why(outcomes, judged, by_name=budgets.max_drop is not None))


def _save(config: BuildConfig, path: Path, console: Console) -> None:
    """Write the settings, unless the file already holds them."""
    from edgekit.core.files import read_regular, write_text
    from edgekit.core.typed_toml import to_toml

    text = to_toml(config)
    if path.exists():
        if read_regular(path) == text.encode():
            return
        raise UsageError(f"{path} holds other settings: choose another name, or remove it")
    write_text(path, text)
    console.info(f"settings: wrote {path}")


def _unable(config: BuildConfig) -> dict[str, str]:
    """The budgets that this build cannot judge, and why."""
    unable = {name: why for name, why in OF_BENCH.items() if name != "max_latency_ratio"}
    if not config.bench:
        unable["max_latency_ratio"] = "the build has --no-bench"
    if config.baseline is None:
        unable["max_regression"] = "--baseline names no earlier bundle"
    if not config.parity:
        unable |= dict.fromkeys(
            ("max_drop", "min_agreement", "max_scores_rms"), "the build has --no-parity"
        )
    return unable


def why(outcomes: Sequence[Outcome], judged: GateReport, *, by_name: bool) -> str:
    """The one line of a failure: all budgets, or parity's verdicts where those say it all.

    ``by_name``: the tolerance is the budget ``max_drop``, and called so.
    """
    names = {row.name for bundle in judged.bundles for row in bundle.not_held}
    gated = [outcome for outcome in outcomes if _compared(outcome) in _NOT_PASSED]
    verdicts = ", ".join(f"{outcome.target} ({in_words(outcome)})" for outcome in gated)
    kept = "the bundles are kept"
    if any(_compared(outcome) == "fail" for outcome in gated):
        graphs = any(outcome.of_graph for outcome in gated)
        kept += f", 'edgekit {'report' if graphs else 'parity'} BUNDLE' shows where robustness "
        kept += "was lost"
    if not names or (names == {"max_drop"} and not by_name):
        return f"parity with the float model: {verdicts}; {kept}"
    return f"{judged.failure()}; {kept if gated else 'the bundles are kept'}"


PLAN = Table.of("step", "target", Column("state", "prose"), Column("writes", "prose"))


def in_words(outcome: Outcome) -> str:
    """The verdict; of an undecided one, what would decide it."""
    from edgekit.parity.document import ParityDocument

    comparison = None if outcome.compared is None else outcome.compared.comparison
    more = comparison.more_images if isinstance(comparison, ParityDocument) else None
    verdict = _verdict(outcome)
    if _compared(outcome) != "undecided" or not more:
        return verdict
    return f"{verdict}: {more:,} more test images like these would decide"


def _compared(outcome: Outcome) -> str:
    """The verdict that the gate judges; of a pending bundle, its graph's."""
    return outcome.verdict if outcome.compared is None else outcome.compared.comparison.verdict


def _verdict(outcome: Outcome) -> str:
    """The same, with what it is about."""
    return f"graph {_compared(outcome)}" if outcome.of_graph else _compared(outcome)


def _still_to_do(outcome: Outcome) -> str:
    """What a bundle whose engine is pending still needs."""
    from edgekit.bundle.engine import next_step

    judged = ""
    if outcome.of_graph:
        judged = "; what was compared is its graph in ONNX Runtime, not that engine"
    return f"{outcome.target}: {next_step(outcome.path)} builds its engine{judged}"


def _plan_row(step: PlannedStep) -> list[str]:
    state = f"{step.state}: {step.why}" if step.why else step.state
    return [step.step, step.target, state, step.writes]


SUMMARY = Table.of(
    "target",
    Column("size MB", "figure", drop=3),
    Column("ms", "figure"),
    Column("x float ORT", "figure", drop=1),
    Column("x float OpenVINO", "figure", drop=4),
    Column("clean error %", "figure", drop=2),
    Column("corruption error %", "figure"),
    "parity",
)


def _row(outcome: Outcome) -> list[str]:
    from edgekit.bench.document import BenchSummary

    bench = BenchSummary() if outcome.bench is None else outcome.bench
    latency, ratios = bench.own, bench.ratios or {}
    parity = None if outcome.compared is None else outcome.compared.comparison
    size = sum(file.stat().st_size for file in outcome.path.iterdir()) / 1e6
    return [
        outcome.target,
        f"{size:.1f}",
        "-" if latency is None else f"{latency.median_ms:.2f}",
        *(_ratio(ratios.get(name)) for name in ("float, ONNX Runtime", "float, OpenVINO")),
        _pair(None if parity is None else parity.clean_error),
        _pair(None if parity is None else parity.corruption_error),
        _verdict(outcome),
    ]


def _ratio(ratio: Ratio | None) -> str:
    if ratio is None:
        return "-"
    return f"{ratio.median:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"


def _pair(errors: OfBoth | MeanError | None) -> str:
    """Float and deployed error, such as ``10.9 -> 11.0``."""
    return "-" if errors is None else f"{errors.reference:.2f} -> {errors.candidate:.2f}"
