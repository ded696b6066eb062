"""What is valid, and made once: the cases are copies of it, spoiled."""

from __future__ import annotations

import functools
import io
import shutil
from pathlib import Path

from PIL import Image

from tests import bundles

BACKENDS = ("onnxruntime-cpu", "cpu")


@functools.cache
def bundle(target: str) -> Path:
    """A float bundle of a tiny network."""
    return bundles.bundle(target)


def give_bundle(target: str, work: Path) -> Path:
    """A copy of it in ``work``."""
    return Path(shutil.copytree(bundle(target), work / "bundle"))


@functools.cache
def images() -> dict[str, bytes]:
    """One image file of each kind, by extension."""
    picture = Image.fromarray(bundles.images(1)[0])
    made = {}
    for name, options in {
        "png": {}, "jpg": {"quality": 80}, "webp": {"lossless": True}, "bmp": {},
        "gif": {}, "tiff": {"compression": "tiff_lzw"}, "ppm": {},
    }.items():  # fmt: skip
        stream = io.BytesIO()
        picture.save(stream, {"jpg": "JPEG"}.get(name, name.upper()), **options)
        made[name] = stream.getvalue()
    rgba = picture.convert("RGBA")
    stream = io.BytesIO()
    rgba.save(stream, "WEBP", save_all=True, append_images=[rgba.rotate(90)])
    made["anim.webp"] = stream.getvalue()
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(stream, "JPEG", progressive=True, exif=exif.tobytes())
    made["exif.jpg"] = stream.getvalue()
    return made
