import errno
import json
import subprocess
import sys
import tempfile

import click
import pytest

from edgekit import __version__
from edgekit.cli.main import cli
from edgekit.core.packages import install_command
from tests.commands import run


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version") == (0, f"edgekit, version {__version__}\n", "")
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert "Examples:" in out
    assert "130  interrupted" in out


def groups() -> list[str]:
    found = [name for name, one in cli.commands.items() if isinstance(one, click.Group)]
    return ["", *sorted(found)]


@pytest.mark.parametrize("name", groups())
def test_no_command_is_described_with_an_ellipsis(name: str) -> None:
    group = cli.commands[name] if name else cli
    assert isinstance(group, click.Group)
    context = click.Context(group, info_name="edgekit", terminal_width=78)  # of 80
    commands = group.get_help(context).partition("Commands:")[2]
    assert commands
    assert "..." not in commands


def command_names() -> list[str]:
    names = []
    for name, command in sorted(cli.commands.items()):
        parts = sorted(command.commands) if isinstance(command, click.Group) else [""]
        names += [f"{name} {part}".strip() for part in parts]
    return names


@pytest.mark.parametrize("name", command_names())
def test_every_command_has_examples_and_the_common_options(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    code, out, _ = run(capsys, *name.split(), "--help")
    assert code == 0
    assert f"edgekit {name}" in out.split("Examples:")[1]
    for option in ("--json", "--verbose", "--quiet"):
        assert option in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["inspect"], "Missing argument 'PATH'"),
        (["inspect", "absent.pth"], "absent.pth does not exist: name a checkpoint"),
        (["doctor", "--jsn"], "--json"),
        (["calibrate", "--dialect", "tensort"], "'tensort' is not one of 'openvino'"),
        (["finetune", "--dialect", "tensort"], "'tensort' is not one of 'auto'"),
        (["build", "--only", "compil"], "'compil' is not one of 'load', 'export'"),
        (["build", "--only", "compil"], " (did you mean 'compile'?) (see 'edgekit build --help')"),
        (["build", "--recipe"], "'--recipe' requires an argument. (see 'edgekit build --help')"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    code, out, err = run(capsys, *words)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


def test_errors_are_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "inspect", "absent.pth", "--json")
    document = json.loads(out)
    assert (code, document["exit_code"]) == (2, 2)
    assert "absent.pth" in document["error"]


@pytest.mark.parametrize(
    ("words", "as_json"),
    [
        (["inspect", "--json"], True),  # an argument is missing
        (["inspect", "--bogus", "--json", "absent.pth"], True),
        (["nonsense", "--json"], True),
        (["device", "nonsense", "--json"], True),
        (["device", "--json"], True),
        (["inspect", "--quiet=yes", "--json"], True),
        (["build", "--json=yes"], True),
        (["build", "--json", "--recipe"], True),
        (["build", "--recipe", "--json"], False),  # no option then: the recipe's name
        (["inspect", "--", "--json"], False),  # the name of a file
        (["export", "absent.pth", "-o", "--json"], False),
        (["build", "--recipe", "--json", "--data", "absent"], False),
    ],
)
def test_json_is_an_option_and_not_a_word(
    capsys: pytest.CaptureFixture[str], words: list[str], as_json: bool
) -> None:
    code, out, err = run(capsys, *words)
    assert code == 2, err
    assert bool(out) == as_json
    assert not as_json or json.loads(out)["exit_code"] == 2


def test_doctor_reports_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "doctor", "--json")
    document = json.loads(out)
    names = {check["name"] for check in document["checks"]}
    assert {"Python", "ISA", "cores", "memory", "torch", "nncf", "openvino"} <= names
    assert {"trtexec", "CUDA", "nvcc", "JetPack", "native library"} <= names
    native = next(check for check in document["checks"] if check["name"] == "native library")
    assert native["status"] == "ok"
    assert "lookup correct" in native["found"]
    assert (code, document["ready"]) == (0, True)


def test_doctor_exits_4_without_the_default_target() -> None:
    """A real interpreter that cannot see the installed packages' metadata, only ours."""
    code = (
        "import importlib.metadata as m, sys\n"
        "real = m.version\n"
        "def version(name):\n"
        "    if name == 'openvino':\n"
        "        raise m.PackageNotFoundError(name)\n"
        "    return real(name)\n"
        "m.version = version\n"
        "from edgekit.cli.main import main\n"
        "main(['doctor'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert "missing: openvino" in done.stderr
    assert install_command("build") in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    code, out, _ = run(capsys, "completion", shell)
    assert code == 0
    assert "_EDGEKIT_COMPLETE" in out


def test_an_interrupt_exits_130() -> None:
    code = (
        "import edgekit.workflows.doctor\n"
        "def stop():\n    raise KeyboardInterrupt\n"
        "edgekit.workflows.doctor.examine = stop\n"
        "from edgekit.cli.main import main\n"
        "main(['doctor'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert "interrupted" in done.stderr


def test_a_failed_gate_still_prints_one_document() -> None:
    """The document is the result; the error goes to stderr alone."""
    code = (
        "import click\n"
        "from edgekit.cli.main import cli, main\n"
        "from edgekit.cli.common import common\n"
        "from edgekit.cli.schema_list import PrintedSchema\n"
        "from edgekit.core.errors import GateFailed\n"
        "@cli.command()\n@common\n"
        "def gate(console):\n"
        "    console.document(PrintedSchema({'verdict': 'fail'}))\n"
        "    raise GateFailed('lost')\n"
        "main(['gate', '--json'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert json.loads(done.stdout) == {"verdict": "fail"}
    assert done.stderr == "error: lost\n"


def test_a_full_disk_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sign` and others write temporary files, whose OSError names no file."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cli.commands["targets"], "callback", full)
    code, out, err = run(capsys, "targets")
    assert (code, out) == (1, "")
    (line,) = err.splitlines()
    assert f"the temporary folder {tempfile.gettempdir()}: No space left on device" in line
    assert "run the same command again" in line
