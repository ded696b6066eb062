"""What a host prepares for a TensorRT device, and a folder that the device's script takes for one.

Only trtexec is stood in for, by a program that says its release and copies the ONNX file: nothing
that is tested with it is a statement about TensorRT.
"""

import dataclasses
import subprocess
from pathlib import Path

from edgekit.bundle.engine import SCRIPT
from edgekit.bundle.manifest import Manifest, ModelInput
from edgekit.bundle.store import write_bundle
from edgekit.compilers.base import CompiledFiles, compiler
from edgekit.targets.descriptor import Descriptor, load_descriptor
from tests import bundles


def any_arch(target: str) -> Descriptor:
    return dataclasses.replace(load_descriptor(target), arch="any")


def compiled(
    folder: Path, target: str = "jetson-orin-nano", descriptor: Descriptor | None = None
) -> CompiledFiles:
    made = bundles.made()
    descriptor = descriptor or any_arch(target)
    return compiler("tensorrt")(made.onnx, made.card.preprocessing, descriptor, folder)


def bundle(folder: Path, target: str = "jetson-orin-nano") -> Path:
    """A bundle as `edgekit build` writes it."""
    scratch = folder / "scratch"
    scratch.mkdir()
    descriptor = any_arch(target)
    return packed(compiled(scratch, descriptor=descriptor), descriptor, folder / target)


def packed(files: CompiledFiles, descriptor: Descriptor, path: Path) -> Path:
    """A bundle of these files."""
    card = bundles.made().card
    manifest = Manifest(
        model={},
        classes=len(card.classes),
        preprocessing=card.preprocessing,
        input=ModelInput(files.input_name, *card.preprocessing.size),
        target=descriptor,
        arch=files.arch,
        main=files.main,
        plugins=files.plugins,
        runtime=files.runtime,
        sections=files.sections,
    )
    write_bundle(path, manifest, {file.name: file for file in files.files}, card.classes)
    return path


class Device:
    """A root folder that looks like a Jetson's."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.set_release(36)
        self.set_tensorrt("100300")

    def set_release(self, release: int) -> None:
        path = self.root / "etc" / "nv_tegra_release"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# R{release} (release), REVISION: 4.3, GCID: 1, BOARD: generic\n")

    def set_tensorrt(self, digits: str, fail: bool = False) -> None:
        path = self.root / "usr" / "src" / "tensorrt" / "bin" / "trtexec"
        path.parent.mkdir(parents=True, exist_ok=True)
        end = 'echo "[E] out of luck"; exit 1' if fail else 'cp "$onnx" "$engine"'
        path.write_text(
            "#!/bin/bash\n"
            f'echo "&&&& RUNNING TensorRT.trtexec [TensorRT v{digits}] # trtexec"\n'
            'if [ "$1" = --help ]; then echo "  --stronglyTyped  --sparsity=spec"; exit 0; fi\n'
            'for word in "$@"; do case "$word" in\n'
            '  --onnx=*) onnx="${word#*=}" ;; --saveEngine=*) engine="${word#*=}" ;;\n'
            "esac; done\n"
            'echo "$@" >>"$EDGEKIT_ROOT/calls"\n' + end + "\n"
        )
        path.chmod(0o755)

    def calls(self) -> list[str]:
        path = self.root / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def build(
        self, path: Path, *options: str, search: str = "/usr/bin:/bin"
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", str(path / SCRIPT), *options],
            env={"PATH": search, "EDGEKIT_ROOT": str(self.root)},
            capture_output=True,
            text=True,
            check=False,
        )


def refused(run: subprocess.CompletedProcess[str], code: int, *parts: str) -> None:
    assert run.returncode == code, run.stderr
    (line,) = run.stderr.strip().splitlines()
    assert line.startswith("error: ")
    for part in parts:
        assert part in line
