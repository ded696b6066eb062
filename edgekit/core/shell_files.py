"""Where shells look for completions of a user's commands, and what lies there."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

from edgekit.core.errors import EdgekitError, UsageError
from edgekit.core.files import make_folder, read_regular, write_text

Shell = Literal["bash", "zsh", "fish"]
SHELLS: Final[tuple[Shell, ...]] = get_args(Shell)
Change = Literal["written", "updated", "unchanged", "removed", "absent"]

_MARK: Final = "_EDGEKIT_COMPLETE"
"""In every script of ours, and in nobody else's."""
_BASH_COMPLETION: Final = (
    "/usr/share/bash-completion/bash_completion",
    "/usr/local/share/bash-completion/bash_completion",
    "/etc/bash_completion",
)


@dataclass(frozen=True)
class CompletionFile:
    """The file of one shell."""

    shell: Shell
    path: Path

    def install(self, script: str) -> Change:
        """Write it, unless it is there; another program's file is refused."""
        before = self._content()
        if before == script:
            return "unchanged"
        try:
            make_folder(self.path.parent)
            write_text(self.path, script)
        except OSError as error:
            raise EdgekitError(f"cannot write {self.path}: {error.strerror}") from error
        return "written" if before is None else "updated"

    def uninstall(self) -> Change:
        """Remove it, if it is there and ours."""
        if self._content() is None:
            return "absent"
        try:
            self.path.unlink()
        except OSError as error:
            raise EdgekitError(f"cannot remove {self.path}: {error.strerror}") from error
        return "removed"

    def to_do(self) -> str:
        """What the user's shell still needs to find the file; nothing here edits its settings."""
        if self.shell == "bash" and not any(Path(name).exists() for name in _BASH_COMPLETION):
            return (
                "bash looks there only with the package bash-completion: run apt-get install "
                f"bash-completion, or add this line to ~/.bashrc: . '{self.path}'"
            )
        settings = Path(os.environ.get("ZDOTDIR") or _home()) / ".zshrc"
        if self.shell == "zsh" and str(self.path.parent) not in _text(settings):
            return (
                f"zsh looks there once you add this line to {settings}, before its compinit: "
                f"fpath=('{self.path.parent}' $fpath); autoload -Uz compinit; compinit"
            )
        return ""

    def _content(self) -> str | None:
        try:
            text = read_regular(self.path).decode("utf-8", errors="replace")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise EdgekitError(f"cannot read {self.path}: {error.strerror}") from error
        if _MARK not in text:
            raise UsageError(f"{self.path} is not edgekit's file: move it away, then try again")
        return text


def completion_file(shell: Shell) -> CompletionFile:
    """The file in the user's own folder; the shells' variables that move it are respected."""
    data = _folder("XDG_DATA_HOME", ".local/share")
    if shell == "bash":
        own = Path(os.environ.get("BASH_COMPLETION_USER_DIR", "").split(":")[0])
        folder = own if own.is_absolute() else data / "bash-completion"
        return CompletionFile(shell, folder / "completions/edgekit")
    if shell == "zsh":
        return CompletionFile(shell, data / "zsh/site-functions/_edgekit")
    settings = _folder("XDG_CONFIG_HOME", ".config")
    return CompletionFile(shell, settings / "fish/completions/edgekit.fish")


def login_shell() -> Shell:
    """The shell in SHELL, if its completions are known here."""
    name = Path(os.environ.get("SHELL", "")).name
    for shell in SHELLS:
        if name == shell:
            return shell
    what = f"SHELL is {name}" if name else "SHELL is not set"
    raise UsageError(f"{what}: name one, as in 'edgekit completion bash --install'")


def _folder(variable: str, usual: str) -> Path:
    # A relative path is to be ignored, says the XDG specification.
    own = Path(os.environ.get(variable, ""))
    return own if own.is_absolute() else _home() / usual


def _home() -> Path:
    """The user's home folder; a relative one is whatever the current folder makes of it."""
    try:
        home = Path.home()
    except RuntimeError:  # a container's user with neither HOME nor a name
        home = Path()
    if os.environ.get("HOME") == "" or not home.is_absolute():
        raise UsageError(
            "HOME is no absolute path, so there is no folder of yours to look in: set HOME, as in "
            "HOME=/home/me"
        )
    return home


def _text(path: Path) -> str:
    try:
        return read_regular(path).decode("utf-8", errors="replace")
    except (OSError, UsageError):  # a pipe, a device, or gigabytes
        return ""
