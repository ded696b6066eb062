"""Completion is installed by one command: one file, in the user's own folder."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from edgekit.core import shell_files
from tests import commands


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "BASH_COMPLETION_USER_DIR", "ZDOTDIR"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: str) -> commands.Ended:
    return commands.run(capsys, "completion", *words)


def files(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


PLACES = {
    "bash": ".local/share/bash-completion/completions/edgekit",
    "zsh": ".local/share/zsh/site-functions/_edgekit",
    "fish": ".config/fish/completions/edgekit.fish",
}


@pytest.mark.parametrize("shell", PLACES)
def test_it_is_installed_and_removed(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shell: str
) -> None:
    monkeypatch.setenv("SHELL", f"/usr/bin/{shell}")
    monkeypatch.setattr(shell_files, "_BASH_COMPLETION", (str(home),))
    path = home / PLACES[shell]
    code, out, _ = run(capsys, "--install")
    assert code == 0
    assert out.splitlines()[0] == f"wrote {path}"
    assert files(home) == [PLACES[shell]], "nothing else is touched"
    script = path.read_text()
    assert run(capsys, shell)[1] == f"{script}\n"
    code, out, _ = run(capsys, "--install")
    assert (code, out.splitlines()[0]) == (0, f"{path} is there already, unchanged")
    path.write_text("# an older one\n_EDGEKIT_COMPLETE=")
    code, out, _ = run(capsys, shell, "--install")
    assert (code, out.splitlines()[0]) == (0, f"updated {path}")
    assert path.read_text() == script
    code, out, _ = run(capsys, "--uninstall", "--json")
    assert code == 0
    document = {"schema": 1, "shell": shell, "path": str(path), "change": "removed", "to_do": ""}
    assert json.loads(out) == document
    assert files(home) == []
    assert run(capsys, "--uninstall")[:2] == (0, f"nothing to remove: there is no {path}\n")


def test_what_a_shell_still_needs(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = run(capsys, "zsh", "--install")
    text = " ".join(out.split())
    folder = home / ".local/share/zsh/site-functions"
    line = f"fpath=('{folder}' $fpath); autoload -Uz compinit; compinit"
    assert f"add this line to {home}/.zshrc" in text
    assert line in text
    (home / ".zshrc").write_text(f"{line}\n")
    _, out, _ = run(capsys, "zsh", "--install")
    assert ".zshrc" not in out
    monkeypatch.setattr(shell_files, "_BASH_COMPLETION", ("/nowhere",))
    _, out, _ = run(capsys, "bash", "--install")
    assert f". '{home}/{PLACES['bash']}'" in " ".join(out.split())


def test_the_folders_that_variables_name(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BASH_COMPLETION_USER_DIR", str(home / "own"))
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    for shell in PLACES:
        assert run(capsys, shell, "--install")[0] == 0
    assert files(home) == [
        PLACES["fish"],
        "data/zsh/site-functions/_edgekit",
        "own/completions/edgekit",
    ]


def test_what_it_refuses(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    for words, message in (
        (("--install",), "SHELL is tcsh: name one"),
        (("--install", "--uninstall"), "choose one"),
        ((), "name the shell"),
    ):
        code, out, err = run(capsys, *words)
        assert (code, out) == (2, "")
        assert message in err
    monkeypatch.delenv("SHELL")
    assert "SHELL is not set" in run(capsys, "--uninstall")[2]
    foreign = home / PLACES["fish"]
    foreign.parent.mkdir(parents=True)
    foreign.write_text("complete -c edgekit -a mine\n")
    for words in (("fish", "--install"), ("fish", "--uninstall")):
        code, _, err = run(capsys, *words)
        assert code == 2
        assert "is not edgekit's file" in err
    assert foreign.read_text() == "complete -c edgekit -a mine\n"
    (home / ".local").write_text("a file where a folder should be")
    code, _, err = run(capsys, "zsh", "--install")
    assert code == 1
    assert str(home / PLACES["zsh"]) in err


@pytest.mark.parametrize("home_is", ["", "relative/home", None])
def test_without_a_home(
    home_is: str | None,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(home)
    if home_is is None:  # and a user without a name, as in a container
        monkeypatch.delenv("HOME")
        monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    else:
        monkeypatch.setenv("HOME", home_is)
    monkeypatch.setenv("BASH_COMPLETION_USER_DIR", "also/relative")
    for shell in PLACES:
        code, _, err = run(capsys, shell, "--install")
        assert code == 2
        assert "set HOME" in err
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "data"))
    assert run(capsys, "zsh", "--install")[0] == 2, "where its settings are is not known"
    assert files(home) == []


def test_only_a_file_is_replaced(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = home / PLACES["bash"]
    path.parent.mkdir(parents=True)
    own = home / "dotfiles"
    own.write_text("# _EDGEKIT_COMPLETE, an older one")
    for place, why in (
        (lambda: path.symlink_to(own), "it is a link"),
        (lambda: path.symlink_to("/dev/zero"), "Not a regular file"),
        (lambda: os.mkfifo(path), "Not a regular file"),
        (path.mkdir, "Is a directory"),
    ):
        place()
        before = path.lstat().st_ino
        code, _, err = run(capsys, "bash", "--install")
        assert code == 1
        assert f"{path}: {why}" in err
        assert path.lstat().st_ino == before
        path.rmdir() if path.is_dir() else path.unlink()
    assert own.read_text() == "# _EDGEKIT_COMPLETE, an older one"


def test_settings_that_never_end(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / ".zshrc").symlink_to("/dev/zero")
    assert run(capsys, "zsh", "--install")[0] == 0


def test_bash_takes_the_file(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "bash", "--install")
    command = f". {home / PLACES['bash']}; complete -p edgekit"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert "-F _edgekit_completion edgekit" in done.stdout
