"""From a (calibrated) ONNX file to a bundle: compile it for a target, describe it, write it."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from edgekit.backends import LookupForm, compiler
from edgekit.bundle import write_bundle
from edgekit.descriptors import Descriptor
from edgekit.manifest import Manifest, ModelInput, Source, tool_versions
from edgekit.model.card import ModelCard


def pack(
    onnx_path: Path,
    card: ModelCard,
    descriptor: Descriptor,
    path: Path,
    *,
    source: Source | None = None,
    rebuild: str = "",
    lookup: LookupForm = "auto",
    zipped: bool = False,
) -> Manifest:
    """Compile ``onnx_path`` for ``descriptor`` and put the bundle at ``path`` in one step.

    ``source`` holds the hashes of what the ONNX file was made from, ``rebuild`` the command that
    does it all again; ``lookup`` is explained in `edgekit.backends.openvino_compile`.
    """
    compile_model = compiler(descriptor.backend)
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        compiled = compile_model(onnx_path, card.preprocessing, descriptor, Path(folder), lookup)
        height, width = card.preprocessing.size
        manifest = Manifest(
            model=_about(card),
            classes=len(card.classes),
            preprocessing=card.preprocessing,
            input=ModelInput(compiled.input_name, height, width),
            target=descriptor,
            arch=compiled.arch,
            main=compiled.main,
            plugins=compiled.plugins,
            runtime=compiled.runtime,
            versions=tool_versions(),
            source=source or Source(),
            rebuild=rebuild,
        )
        files = {file.name: file for file in compiled.files}
        return write_bundle(path, manifest, files, card.classes, zipped=zipped)


def _about(card: ModelCard) -> dict[str, object]:
    """The card, without what the manifest says elsewhere."""
    about = dataclasses.asdict(card)
    del about["classes"], about["preprocessing"]
    return about
