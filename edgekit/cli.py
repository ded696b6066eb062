"""The ``edgekit`` command: parses options, calls a step, prints its result, sets the exit code.

No logic lives here, and nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

import click

from edgekit import __version__
from edgekit.cli_common import Command, common
from edgekit.console import Console, document_printed, expect_document
from edgekit.errors import EdgekitError, ToolchainMissing, UsageError

_EXIT_CODES = """\b
Exit codes:
  0    done and passed
  1    a step failed
  2    wrong usage or input
  3    a parity gate failed or is undecided
  4    a toolchain or runtime is missing
  5    a device is unreachable
  130  interrupted; a rerun resumes"""


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_EXIT_CODES,
)
@click.version_option(__version__, prog_name="edgekit")
def cli() -> None:
    """Robust image classifiers on the edge: VQ-SA from checkpoint to INT8, robustness proven.

    \b
    Examples:
      edgekit build                      built-in model and images, this CPU
      edgekit build --checkpoint best.pth --data ./photos
      edgekit predict build/cpu photo.jpg
      edgekit doctor                     what this machine can build
      edgekit COMMAND --help             options and examples of a command
    """


@cli.command(
    cls=Command,
    examples="""
    edgekit doctor
    edgekit doctor --json | jq '.checks[] | select(.status == "missing")'
    """,
)
@common
def doctor(console: Console) -> None:
    """Show what this machine can build and run, and how to get what is missing.

    Exits with 4 when the default target (OpenVINO on this CPU) cannot be built.
    """
    from dataclasses import asdict

    from edgekit.doctor import default_target_ready, examine

    checks = examine()
    ready = default_target_ready(checks)
    console.document({"ready": ready, "checks": [asdict(check) for check in checks]})
    rows = [
        (check.name, check.status if check.status != "none" else "-", check.found, check.fix)
        for check in checks
    ]
    console.table("", ("what", "status", "found", "what to do"), rows)
    if not ready:
        missing = [check.name for check in checks if check.needed and check.status == "missing"]
        raise ToolchainMissing(
            f"the default target cannot be built here, missing: {', '.join(missing)}; "
            "the table above says how to get it"
        )
    console.info("The default target (OpenVINO on this CPU) can be built here.")


@cli.command(
    cls=Command,
    examples="""
    edgekit inspect best.pth
    edgekit inspect build/cpu
    edgekit inspect resnet50.pth --labels labels.txt --json
    edgekit inspect vit.safetensors --backbone timm:vit_tiny_patch16_224
    """,
)
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--backbone", help="Backbone of a plain timm checkpoint, as timm:NAME.")
@click.option("--labels", type=click.Path(path_type=Path), help="Text file, a class name a line.")
@common
def inspect(console: Console, path: Path, backbone: str | None, labels: Path | None) -> None:
    """Show what a checkpoint or a bundle is, and where it comes from."""
    from edgekit.inspection import inspect_bundle, inspect_checkpoint, is_bundle, read_labels

    if is_bundle(path):
        bundle = inspect_bundle(path)
        console.document(bundle.to_dict())
        console.table(str(path), ("", ""), bundle.rows())
        return
    report = inspect_checkpoint(path, backbone, read_labels(labels) if labels else None)
    console.document(report.to_dict())
    console.table(str(path), ("", ""), report.rows())
    for note in report.notes:
        console.info(f"note: {note}")


@cli.command(
    cls=Command,
    examples="""
    eval "$(edgekit completion bash)"
    edgekit completion fish > ~/.config/fish/completions/edgekit.fish
    """,
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@common
def completion(console: Console, shell: str) -> None:
    """Print the script that completes edgekit's commands and options in your shell."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(cli, {}, "edgekit", "_EDGEKIT_COMPLETE").source()
    console.document({"shell": shell, "script": script})
    console.text(script)


def _add_commands() -> None:
    """The commands with modules of their own; these import nothing heavy either."""
    from edgekit.cli_bench import bench
    from edgekit.cli_build import build
    from edgekit.cli_calibrate import calibrate
    from edgekit.cli_check import check
    from edgekit.cli_deploy import deploy
    from edgekit.cli_device import device
    from edgekit.cli_export import export
    from edgekit.cli_finetune import finetune
    from edgekit.cli_parity import parity
    from edgekit.cli_predict import predict
    from edgekit.cli_report import report
    from edgekit.cli_targets import targets
    from edgekit.cli_train import train

    commands = (bench, build, calibrate, check, deploy, device, export, parity, predict)
    for command in (*commands, finetune, report, targets, train):
        cli.add_command(command)


_add_commands()


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line; every foreseen failure is one line on stderr and an exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    expect_document()
    try:
        cli.main(words, prog_name="edgekit", standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted; finished work is kept, run the same command to resume", 130, words)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "edgekit"
        message = " ".join(error.format_message().split())
        _fail(f"{message} (see '{command} --help')", UsageError.exit_code, words)
    except click.ClickException as error:
        _fail(error.format_message(), UsageError.exit_code, words)
    except EdgekitError as error:
        _fail(str(error), error.exit_code, words)
    except BrokenPipeError:  # the reader of a pipe (head, say) has enough
        sys.stderr.close()
        sys.exit(1)
    sys.exit(0)


def _fail(message: str, code: int, words: list[str]) -> NoReturn:
    if "--json" in words and not document_printed():
        Console(as_json=True).document({"error": message, "exit_code": code})
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
