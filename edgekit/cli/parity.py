"""``edgekit parity``: does a compressed classifier keep its original's robustness?"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from edgekit.cli.common import Command, OutputFile, common
from edgekit.cli.gate import fail_unless_held, gate_options, take_gate
from edgekit.cli.parity_gate import (
    NORMALIZERS,
    check_baseline,
    judged,
    only_tolerance,
    unable,
    why,
)
from edgekit.cli.parity_runs import against, of_any, of_bundle
from edgekit.core.console import Console
from edgekit.core.errors import UsageError
from edgekit.core.packages import PARITY
from edgekit.parity.tolerance import TOLERANCE

if TYPE_CHECKING:
    from edgekit.foreign.open import ForeignOptions
    from edgekit.metrics.corruption_error import Baseline


@click.command(
    cls=Command,
    prints=("parity", "parity-across", "parity-plan"),
    short_help="Compare a bundle's robustness with its float original's.",
    needs=PARITY,
    extra="parity",
    examples="""
    edgekit parity build/cpu
    edgekit parity build/cpu --tolerance 0.3 || echo "robustness lost"
    edgekit parity build/cpu --data imagenet-c:/data/imagenet-c --full
    edgekit parity build/cpu --reference best.pth --max-corruption-delta 2
    edgekit parity build/new --reference build/old --allow-different-reference
    edgekit parity build/cpu --baseline previous/cpu --min-agreement 0.98 \\
      --summary summary.md --junit parity.xml
    edgekit parity build/cpu --budgets budgets.toml
    edgekit parity build/cpu --worst changed --worst-images 60
    edgekit parity build/jetson-orin-nano --device nano
    edgekit parity int8.onnx --reference float.onnx --data photos \\
      --preprocessing imagenet --out build/judged
    edgekit parity int8.tflite --reference float.onnx --data photos \\
      --preprocessing timm:mobilenetv3_small_100 --background
    edgekit parity --across float.onnx int8.onnx int8.tflite --data photos \\
      --preprocessing imagenet --of int8.tflite:background
    edgekit parity --across m.xml m.xml@openvino:GPU --device nano:build/nano \\
      --data photos --preprocessing imagenet
    edgekit parity command:./npu.sh --reference best.pth --data photos \\
      --preprocessing lite0
    edgekit parity build/cpu --data imagenet-c:/data/imagenet-c --on ray:head:6379
    edgekit parity --plan --tolerance 0.5 --data photos
    """,
)
@click.argument("candidates", nargs=-1, metavar="[CANDIDATE]...")
@click.option("--plan", is_flag=True, help="Compare nothing; say how many images it takes.")
@click.option("--across", is_flag=True, help="Compare all CANDIDATEs with each other, too.")
@click.option("--reference", help="What is right; default: the bundle's float original.")
@click.option("--data", help="Images, or imagenet-c:FOLDER; default: the build's test images.")
@click.option("--labels", help="Class names, a file, where a model has none.")
@click.option("--preprocessing", help="imagenet, lite0, timm:NAME or FILE.toml; of foreign files.")
@click.option("--reference-preprocessing", help="The reference's, if it is another one.")
@click.option("--output-name", help="The candidate's output with a score a class.")
@click.option("--reference-output-name", help="The reference's.")
@click.option("--background", is_flag=True, help="The candidate's first class is none of these.")
@click.option("--reference-background", is_flag=True, help="The reference's is.")
@click.option(
    "--extension",
    type=click.Path(path_type=Path),
    help="Library with the operators of an OpenVINO .xml.",
)
@click.option(
    "--tolerance",
    type=float,
    help=f"Points of corruption error; max_drop in [budgets].  [{TOLERANCE}]",
)
@click.option("--corruptions", help="Names or a group, comma-separated.  [benchmark15]")
@click.option("--severities", default="1,2,3,4,5", show_default=True, help="Some of 1 to 5.")
@click.option("--extra", is_flag=True, help="Also the four extra corruptions, outside the mean.")
@click.option(
    "--normalize-by",
    type=click.Choice(NORMALIZERS),
    default="auto",
    show_default=True,
    help="What mCE is normalized by; auto: AlexNet for 1000 classes.",
)
@click.option("--full", is_flag=True, help="Evaluate everything, even if less would decide.")
@click.option("--images", type=click.IntRange(0), default=0, help="Most images to use; 0 for all.")
@click.option(
    "--min-code-agreement", type=float, help="Gate: least share of equal codes, a fraction."
)
@click.option(
    "--max-corruption-delta", type=float, help="Gate: most points lost on any single corruption."
)
@click.option("--baseline", help="An earlier bundle that this one must not be worse than.")
@gate_options("min_agreement", "max_scores_rms", "max_mb", "max_regression")
@click.option("--seed", type=int, help="Seed of order and corruptions; default: the build's.")
@click.option("--skip-bad", is_flag=True, help="Leave unreadable images out.")
@click.option(
    "--allow-different-reference", is_flag=True, help="Allow a reference from another checkpoint."
)
@click.option("--replace", is_flag=True, help="Replace the bundle's evidence, even if weaker.")
@click.option(
    "--device",
    "devices",
    multiple=True,
    help="Run the bundle on a registered device, or user@host; across: NAME:BUNDLE.",
)
@click.option(
    "--of", "settings", multiple=True, help="Across: NAME:OPTION=VALUE for one file alone."
)
@click.option("--report", type=OutputFile(), help="Across: write an HTML page to this file.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Keep the result of files in this folder: parity.json, report.html.",
)
@click.option(
    "--worst",
    type=click.Path(path_type=Path),
    help="Write the images whose answer changed, and a page of them, to this folder.",
)
@click.option(
    "--worst-images",
    type=click.IntRange(1, 1000),
    default=24,
    show_default=True,
    help="Most of them; the most confident losses.",
)
@click.option("--no-images", is_flag=True, help="No test images in the bundle and on its page.")
@click.option("--on", help="Where it runs: ray (a Ray of its own), or ray:ADDRESS of a cluster.")
@click.option("--allow-fallback", is_flag=True, help="Go on if a file runs elsewhere than asked.")
@click.option(
    "--allow-weak-reference",
    is_flag=True,
    help="Go on if the reference is no better than one answer for all images.",
)
@common
def parity(
    console: Console,
    candidates: tuple[str, ...],
    plan: bool,
    across: bool,
    reference: str | None,
    data: str | None,
    labels: str | None,
    preprocessing: str | None,
    reference_preprocessing: str | None,
    output_name: str | None,
    reference_output_name: str | None,
    background: bool,
    reference_background: bool,
    extension: Path | None,
    tolerance: float | None,
    corruptions: str | None,
    severities: str,
    extra: bool,
    normalize_by: str,
    full: bool,
    images: int,
    min_code_agreement: float | None,
    max_corruption_delta: float | None,
    baseline: str | None,
    seed: int | None,
    skip_bad: bool,
    allow_different_reference: bool,
    replace: bool,
    on: str | None,
    devices: tuple[str, ...],
    settings: tuple[str, ...],
    report: Path | None,
    out: Path | None,
    worst: Path | None,
    worst_images: int,
    no_images: bool,
    allow_fallback: bool,
    allow_weak_reference: bool,
    **gating: Any,
) -> None:
    """Compare CANDIDATE with its reference on clean and corrupted images.

    CANDIDATE and --reference are each a bundle, a classifier's file (.onnx, .xml of
    OpenVINO, .tflite) or command:PROGRAM; the reference may also be a checkpoint. What
    such a file does not say, --preprocessing and the options after it do. FILE@RUNTIME
    says where it runs: @openvino:GPU, @onnxruntime:CUDA.

    With --across, several are compared on the same images, each with the reference (the
    first, unless --reference names another) and each with each.

    With --on ray, Ray's workers corrupt and answer, on this machine or a cluster whose
    machines see the same files: the result is the same (docs/scale.md).

    With --plan, nothing is compared: it prints how many test images a tolerance takes, and
    what the test images of --data would decide. CANDIDATE may be a bundle that was
    compared before, whose own figures then count.

    A bundle's result becomes its evidence, unless stronger evidence exists; then it is
    kept beside that. With it, the bundle keeps six test images for its page, unless
    --no-images says otherwise.

    Exits with 0 if the loss is within the tolerance and every budget is held, and with 3
    if not, if the images do not decide, or if they have no labels.
    """
    from edgekit.cli.across import across_artifacts
    from edgekit.cli.parity_plan import plan_parity
    from edgekit.core.step_cache import cache_root
    from edgekit.foreign.open import ForeignOptions
    from edgekit.model.labels import read_labels
    from edgekit.parity.example_images import examples_of
    from edgekit.parity.options import Gates, ParityOptions
    from edgekit.parity.ray_cluster import executor_on
    from edgekit.report.gate import GatedParity
    from edgekit.report.parity_folder import keep, prepare
    from edgekit.report.parity_table import show
    from edgekit.report.worst_folder import check_place, write_worst
    from edgekit.steps.context import Context
    from edgekit.workflows.foreign_parity import Side

    gate = take_gate(gating)
    if worst is not None and (plan or across):
        raise UsageError("--worst is for a comparison of two: leave out --plan, --across")
    if plan:
        if across or reference or devices or on:
            raise UsageError(
                "--plan compares nothing: leave out --across, --reference, --device, --on"
            )
        drop = only_tolerance(gate, tolerance, baseline)
        plan_parity(console, candidates, data, drop, seed or 0, skip_bad=skip_bad)
        return
    if on is not None and devices:
        raise UsageError("--device answers where the device is: leave out --on")
    executor = click.get_current_context().with_resource(executor_on(on, console))
    context = Context(console, cache_root(), executor=executor)
    ours = ForeignOptions(
        preprocessing,
        output_name,
        background,
        extension=extension,
        allow_fallback=allow_fallback,
        allow_weak=allow_weak_reference,
    )
    options = ParityOptions(
        reference=reference,
        data=data,
        labels=labels,
        gates=Gates(TOLERANCE, min_code_agreement, max_corruption_delta),
        corruptions=corruptions,
        severities=_severities(severities),
        extra=extra,
        normalize_by=None if normalize_by == "auto" else cast("Baseline", normalize_by),
        full=full,
        images=images,
        skip_bad=skip_bad,
        allow_different_reference=allow_different_reference,
    )
    if across:
        if reference_preprocessing or reference_output_name or reference_background:
            raise UsageError("with --across, say it with --of NAME:OPTION=VALUE")
        drop = only_tolerance(gate, tolerance, baseline)
        gates = dataclasses.replace(options.gates, tolerance=drop)
        options = dataclasses.replace(options, gates=gates)
        across_artifacts(
            context, candidates, devices, options, ours, settings, seed=seed, report=report, out=out
        )
        return
    if report is not None:
        raise UsageError("--report is for --across: --out keeps the result of one file")
    candidate, device = _only(candidates, devices, settings)
    theirs = ForeignOptions(
        reference_preprocessing or preprocessing,
        reference_output_name,
        reference_background,
        extension=extension,
        allow_fallback=allow_fallback,
        allow_weak=allow_weak_reference,
    )
    one, other = Side(candidate, ours), Side(reference or "", theirs)
    check_baseline(baseline, candidate, device)
    budgets, left_out = gate.judged(unable(one, baseline))
    gate.check([Path(candidate)], worst=worst)
    if tolerance is not None:
        budgets = dataclasses.replace(budgets, max_drop=tolerance)
    drop = TOLERANCE if budgets.max_drop is None else budgets.max_drop
    gates = Gates(drop, min_code_agreement, max_corruption_delta, budgets.min_agreement)
    options = dataclasses.replace(options, gates=gates)
    kept = 0
    if worst is not None:
        check_place(worst, context.cache)
        kept = worst_images
    if one.bundle and not other.foreign:
        _refuse_unused(ours, reference_preprocessing, theirs)
        if out is not None:
            raise UsageError("--out is for files: a bundle keeps its own result, leave it out")
        comparison = of_bundle(
            *(context, Path(candidate), options, seed, device, kept),
            replace=replace,
            pictures=not no_images,
        )
    elif reference is None:
        raise UsageError(f"{candidate} is no bundle: name what is right, with --reference")
    elif min_code_agreement is not None:
        raise UsageError("--min-code-agreement is for two bundles: others have no codes to compare")
    else:
        if labels is not None:
            names = read_labels(Path(labels))
            one, other = one.labeled(names), other.labeled(names)
        if out is not None:
            prepare(out)
        comparison = of_any(context, one, other, options, seed, device, kept)
        if out is not None:
            keep(out, comparison.document, console, None if no_images else examples_of(comparison))
    document = comparison.document
    if worst is not None:
        write_worst(worst, comparison, console, context.cache)
    earlier = None
    if baseline is not None:
        limit = drop if budgets.max_regression is None else budgets.max_regression
        budgets = dataclasses.replace(budgets, max_regression=limit)
        earlier = against(context, one, baseline, options, seed, limit)
    outcome = judged(one, document, earlier, baseline, budgets, left_out, out)
    console.document(GatedParity(document, outcome.section(), earlier))
    show(console, document)
    outcome.show(console)
    gate.write(outcome, console)
    fail_unless_held(outcome, why(outcome, document, by_name=gate.shared.max_drop is not None))


def _only(
    candidates: tuple[str, ...], devices: tuple[str, ...], settings: tuple[str, ...]
) -> tuple[str, str | None]:
    """The candidate and the device of a comparison of two."""
    if len(candidates) != 1 or len(devices) > 1 or settings:
        raise UsageError(
            "name one CANDIDATE and at most one --device; several, and --of, are for --across"
        )
    return candidates[0], devices[0] if devices else None


def _refuse_unused(
    ours: ForeignOptions, reference_preprocessing: str | None, theirs: ForeignOptions
) -> None:
    """An option that changes nothing would be taken for one that did."""
    told = {
        "--preprocessing": ours.preprocessing,
        "--reference-preprocessing": reference_preprocessing,
        "--output-name": ours.output or theirs.output,
        "--background": ours.background or theirs.background,
        "--extension": ours.extension,
        "--allow-fallback": ours.allow_fallback,
        "--allow-weak-reference": ours.allow_weak,
    }
    for name, value in told.items():
        if value:
            raise UsageError(f"{name} is for files that edgekit did not make: leave it out here")


def _severities(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"--severities must be numbers such as 1,3,5, not '{text}'") from error
