"""An arm64 Debian 12 that this machine can enter, made once by hash: ``make test-arm``.

    python -m tests.arm.userland FOLDER        then set EDGEKIT_ARM_USERLAND=FOLDER

Debian's packages and the package index's aarch64 wheels are unpacked, never installed, so nothing
here needs root; PRoot and QEMU enter it without any setting of the kernel's. It has what a
Raspberry Pi has when it is new: Python with venv, OpenSSH's tools, and no wheel. Needs
Debian packages on this machine: proot qemu-user-static apt (and Debian's archive keyring).
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tools import arm_wheels

VARIABLE: Final = "EDGEKIT_ARM_USERLAND"
TOOLS: Final = ("proot", "qemu-aarch64-static", "apt-get", "dpkg-deb")

_PACKAGES: Final = (
    *("base-files", "bash", "coreutils", "dash", "grep", "libc-bin", "sed"),
    *("python3", "python3-venv", "openssh-client", "libstdc++6", "libgomp1"),
    *("libasan8", "libubsan1"),  # for the native tests under sanitizers
)
_APT: Final = """
Dir::State "{folder}/state";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/cache";
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "/dev/null";
APT::Architecture "arm64";
APT::Architectures {{ "arm64"; }};
APT::Sandbox::User "";
Acquire::Languages "none";
"""
_SOURCES: Final = (
    "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] "
    "http://deb.debian.org/debian bookworm main\n"
)
# What a device installs beside a runtime, and what a workstation has for corruptions.
_DEVICE: Final = ("numpy", "pillow", "click", "rich")
_RUNTIMES: Final = ("onnxruntime", "openvino")
_WORKSTATION: Final = ("numpy", "pillow", "scipy", "opencv-python-headless", "click", "rich")
# QEMU shows the host's, whose features are spelled otherwise: an aarch64 kernel's, of a Cortex-A76.
_CPUINFO: Final = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1

"""  # noqa: E501 - one line, as the kernel writes it
# Debian 12's PRoot does not translate the paths of faccessat2, which QEMU's C library tries first:
# without that call it takes faccessat. /sys is the host's, because OpenVINO's compiler of kernels
# crashes where no CPUs are listed.
_ENTER: Final = """#!{python} -IS
# Runs its arguments in the userland; as sshd's forced command, what the client asked for.
import ctypes, os, shlex, struct, sys

def instruction(code, no, value):
    return struct.pack("HBBI", code, 0, no, value)

FACCESSAT2, ENOSYS = 439, 38
steps = (
    instruction(0x20, 0, 0)  # load the call's number
    + instruction(0x15, 1, FACCESSAT2)  # if it is this one
    + instruction(0x06, 0, 0x00050000 | ENOSYS)
    + instruction(0x06, 0, 0x7FFF0000)  # allow
)
filters = ctypes.create_string_buffer(steps, len(steps))
program = struct.pack("HP", 4, ctypes.addressof(filters))
prctl = ctypes.CDLL(None).prctl
prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
if prctl(22, 2, program, 0, 0):  # PR_SET_SECCOMP, with a filter
    sys.exit("enter: this kernel takes no filter of system calls")
asked = os.environ.get("SSH_ORIGINAL_COMMAND")
command = ["/bin/sh", "-c", asked] if asked else sys.argv[1:]
environment = dict(
    PATH="/usr/bin:/usr/sbin", HOME="/root", LANG="C.UTF-8", QEMU_CPU="cortex-a76",
    PYTHONPATH=os.environ.get("GUEST_PYTHONPATH", ""),
)
binds = ["-b", "/proc", "-b", "/dev", "-b", "/sys", "-b", "{cpuinfo}:/proc/cpuinfo"]
binds += shlex.split(os.environ.get("GUEST_BINDS", ""))
os.chdir("/")
words = ["{proot}", "-q", "{qemu}", "-r", "{root}", *binds, "-w", "/", *command]
os.execve(words[0], words, environment)
"""


@dataclass(frozen=True)
class Userland:
    """A userland that was made."""

    folder: Path

    @property
    def root(self) -> Path:
        """Its file system."""
        return self.folder / "root"

    @property
    def enter(self) -> Path:
        """A program that runs its arguments in there; `GUEST_BINDS` are further folders of ours."""
        return self.folder / "enter"

    def wheels(self, runtime: str) -> Path:
        """All that a device without internet needs for a runtime."""
        return self.folder / "wheels" / runtime

    def run(
        self,
        command: Sequence[str | Path],
        binds: Sequence[Path] = (),
        packages: Sequence[Path] | None = None,
        seconds: float = 900,
    ) -> subprocess.CompletedProcess[str]:
        """Run a workstation's command in there.

        It sees edgekit's sources, and imports from ``packages``: if None, from the sources and
        what they need.
        """
        shown = (*binds, SOURCE)
        environment = {
            **os.environ,
            "GUEST_BINDS": " ".join(f"-b {shlex.quote(str(path))}" for path in shown),
            "GUEST_PYTHONPATH": ":".join(map(str, WORKSTATION if packages is None else packages)),
        }
        return subprocess.run(
            [self.enter, *command],
            env=environment, capture_output=True, text=True, timeout=seconds, check=False,
        )  # fmt: skip


SOURCE: Final = Path(__file__).resolve().parents[2]
WORKSTATION: Final = (SOURCE, Path("/opt/workstation"))


def location() -> Userland | None:
    """The userland of the environment variable."""
    text = os.environ.get(VARIABLE)
    return Userland(Path(text).resolve() / _key()) if text else None


def prepare(folder: Path) -> Userland:
    """The userland in ``folder``, made unless the same is there already; others there go."""
    for tool in TOOLS:
        if shutil.which(tool) is None:
            sys.exit(f"{tool} is missing: apt-get install proot qemu-user-static apt dpkg")
    folder = folder.resolve()
    made = Userland(folder / _key())
    if made.folder.exists():
        return made
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*"):
        shutil.rmtree(old)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".making-") as scratch:
        partial = Userland(Path(scratch) / "userland")
        _unpack_debian(partial.root, Path(scratch) / "apt")
        for runtime in _RUNTIMES:
            arm_wheels.download(partial.wheels(runtime), [*_DEVICE, runtime])
        workstation = Path(scratch) / "wheels"
        arm_wheels.download(workstation, _WORKSTATION)
        for wheel in workstation.glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(partial.root / "opt" / "workstation")
        (partial.folder / "cpuinfo").write_text(_CPUINFO)
        partial.enter.write_text(
            _ENTER.format(
                proot=shutil.which("proot"),
                qemu=shutil.which("qemu-aarch64-static"),
                python=sys.executable,
                root=made.root,
                cpuinfo=made.folder / "cpuinfo",
            )
        )
        partial.enter.chmod(0o755)
        partial.folder.rename(made.folder)
    print(f"{made.folder}: ready", flush=True)
    return made


def _key() -> str:
    """Changes with everything that the userland is made from."""
    text = Path(__file__).read_text() + Path(arm_wheels.__file__).read_text()
    text += " ".join(arm_wheels.pins([*_DEVICE, *_RUNTIMES, *_WORKSTATION]))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _unpack_debian(root: Path, folder: Path) -> None:
    """Unpack the packages and all that they depend on; apt checks their signatures."""
    for part in ("state/lists/partial", "cache/archives/partial"):
        (folder / part).mkdir(parents=True)
    (folder / "status").touch()
    (folder / "sources.list").write_text(_SOURCES)
    (folder / "conf").write_text(_APT.format(folder=folder))
    environment = {**os.environ, "APT_CONFIG": str(folder / "conf"), "LC_ALL": "C"}
    get = ["apt-get", "-qq", "-y", "--no-install-recommends"]
    for command in (["update"], ["install", "--download-only", *_PACKAGES]):
        subprocess.run([*get, *command], env=environment, check=True)
    root.mkdir(parents=True)
    for name in ("bin", "sbin", "lib"):  # as Debian merges them; packages still use both names
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for package in sorted((folder / "cache" / "archives").glob("*.deb")):
        tar = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE)
        unpack: list[str | Path] = [
            "tar",
            "-x",
            "-C",
            root,
            "--keep-directory-symlink",
            "--no-same-owner",
        ]
        subprocess.run(unpack, stdin=tar.stdout, check=True)
        if tar.wait():
            raise SystemExit(f"{package.name} is damaged")
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/bash\n")
    (root / "etc" / "machine-id").write_text(hashlib.sha256(str(root).encode()).hexdigest()[:32])
    (root / "etc" / "ssl" / "certs").mkdir(parents=True, exist_ok=True)


if __name__ == "__main__":
    prepare(Path(sys.argv[1]))
