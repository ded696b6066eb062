"""NVIDIA's packages that the TensorRT tests need, fetched once by hash: ``make test-tensorrt``.

    python -m tests.tensorrt.kit FOLDER        then set EDGEKIT_TENSORRT_KIT=FOLDER

TensorRT's headers, two releases of its lean runtime (whose plugin registry works without a GPU),
TensorRT-RTX (whose parser and builder do) and CUDA's static runtime for aarch64: 190 MB, unpacked
450 MB. Without the folder the tests that need it skip.
"""

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

VARIABLE = "EDGEKIT_TENSORRT_KIT"
_ARM = ("--platform", "manylinux_2_17_aarch64", "--only-binary=:all:")
# Folder -> what is unpacked into it: a requirement, its file's SHA-256, and options of pip.
_PARTS: dict[str, tuple[tuple[str, str, tuple[str, ...]], ...]] = {
    "headers": (
        (
            "kernel-lens==2.0.1",
            "07cc714e8b5e7f34b672f7c7fad93febe7c747be5837ba276b1527370134ffe0",
            (),
        ),
    ),
    "lean-10.15": (
        (
            "tensorrt-lean-cu13-libs==10.15.1.29",
            "81ffa62c2250431c5108ef4dca85b7b4760b382179611746da37b3812a12bfc4",
            (),
        ),
        (
            "tensorrt-lean-cu13-bindings==10.15.1.29",
            "af556dc6dfc3f9bf7f32cfcd160aba8e8a278ebd3317b999049a02af7bfe3e58",
            (),
        ),
    ),
    "lean-11.4": (
        (
            "tensorrt-lean-cu13-libs==11.4.0.106",
            "e022b8d0e21f19258657aec6760e1de8b454ed176f76217e3f7ec2036c5a9410",
            (),
        ),
        (
            "tensorrt-lean-cu13-bindings==11.4.0.106",
            "539faf8524d7e8c5d893857d97d170ef3636f3e71262aafa670797f740e9086a",
            (),
        ),
    ),
    "rtx": (
        (
            "tensorrt-rtx-cu13-libs==1.7.1.116",
            "e3fd45fed001240d63304e77a2d4006319b839994237cb294b6e7ad72acaabcd",
            (),
        ),
        (
            "tensorrt-rtx-cu13-bindings==1.7.1.116",
            "6a4d2bf39a98b71238046b9a9dd22d0e6b146be90cd56ac09f1e068933e4e18d",
            (),
        ),
    ),
    "cudart-aarch64": (
        (
            "nvidia-cuda-runtime==13.0.96",
            "ef9bcbe90493a2b9d810e43d249adb3d02e98dd30200d86607d8d02687c43f55",
            _ARM,
        ),
    ),
}


def prepare(folder: Path) -> None:
    """Fill ``folder``; parts that are there stay."""
    for name, wheels in _PARTS.items():
        target = folder / name
        if target.exists():
            continue
        with tempfile.TemporaryDirectory(dir=_made(folder), prefix=f".{name}-") as scratch:
            downloads = Path(scratch) / "downloads"
            for requirement, digest, options in wheels:
                _download(requirement, digest, options, downloads)
            unpacked = Path(scratch) / "unpacked"
            for wheel in downloads.glob("*.whl"):
                zipfile.ZipFile(wheel).extractall(unpacked)
            unpacked.rename(target)
        print(f"{target}: ready", flush=True)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _download(requirement: str, digest: str, options: tuple[str, ...], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    listed = folder / "requirement.txt"
    listed.write_text(f"{requirement} --hash=sha256:{digest}\n")
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
         "--no-deps", "--require-hashes", *options, "--dest", folder, "-r", listed],
        check=True,
    )  # fmt: skip


def location() -> Path | None:
    """The folder of the environment variable."""
    text = os.environ.get(VARIABLE)
    return Path(text).resolve() if text else None


if __name__ == "__main__":
    prepare(Path(sys.argv[1]))
