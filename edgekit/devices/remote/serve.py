"""``python -m edgekit.devices.remote.serve BUNDLE``, on the device: images in, answers out.

First comes a frame that describes the model. Then each frame of images (payload: uint8
[B, height, width, 3]) gets one of answers: logits (float32), codes (int64) and margins (float32),
one after the other, little-endian. Frames are those of `edgekit.devices.remote.agent`.
"""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

import numpy as np

from edgekit.core.errors import EdgekitError, UsageError
from edgekit.devices.remote.agent import pack, unpack
from edgekit.parity.predictors import BundlePredictor, open_bundle_predictor
from edgekit.runtime.answers import Answers


def serve(path: Path, incoming: BinaryIO, outgoing: BinaryIO) -> None:
    """Answer until ``incoming`` ends."""
    model = open_bundle_predictor(path)
    _send(outgoing, pack(_describe(model)))
    size = model.preprocessing.size

    def read(count: int) -> bytes:
        data = incoming.read(count)
        if len(data) < count:
            raise EOFError
        return data

    while True:
        try:
            header, payload = unpack(read)
        except EOFError:
            return
        count = int(header["images"])
        images = np.frombuffer(bytearray(payload), np.uint8)  # writable, as runtimes want it
        if images.size != count * size[0] * size[1] * 3:
            raise UsageError(f"{images.size} bytes are not {count} images")
        _send(outgoing, pack_answers(model.run(images.reshape(count, *size, 3))))


def pack_answers(answers: Answers) -> bytes:
    """Answers as a frame."""
    shapes: dict[str, list[int] | None] = {}
    parts = []
    for name, kind in KINDS.items():
        values = getattr(answers, name)
        shapes[name] = None if values is None else list(values.shape)
        if values is not None:
            parts.append(np.ascontiguousarray(values, np.dtype(kind)).tobytes())
    return pack({"shapes": shapes}, b"".join(parts))


# The arrays of `Answers`, in the order of the payload.
KINDS = {"logits": "<f4", "code": "<i8", "margin": "<f4"}


def _describe(model: BundlePredictor) -> dict[str, object]:
    return {
        "name": model.name,
        "key": model.key,
        "execution": {**asdict(model.execution), "nodes": None},
        "identity": model.model.manifest.identity(),
        "chunk": model.chunk * max(1, model.model.describe()["streams"]),
    }


def _send(outgoing: BinaryIO, data: bytes) -> None:
    outgoing.write(data)
    outgoing.flush()


def main(arguments: list[str]) -> int:
    """Serve one bundle on stdin and stdout; the exit code."""
    outgoing = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a runtime prints must not mix with the frames
    try:
        if len(arguments) != 1:
            raise UsageError("usage: python -m edgekit.devices.remote.serve BUNDLE")
        serve(Path(arguments[0]), sys.stdin.buffer, outgoing)
    except EdgekitError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # nobody wants the answer any more
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
