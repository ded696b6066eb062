"""Reading and writing checkpoints.

Our own format is a safetensors file whose metadata holds the model card as JSON. A checkpoint
is untrusted input: nothing in it is ever executed, and any fault in it is reported in one line
that names the key, what was expected and what was found.
"""

from __future__ import annotations

import dataclasses
import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from edgekit.core.damage import DAMAGE
from edgekit.core.errors import UsageError
from edgekit.core.files import open_regular, write_bytes
from edgekit.data.corruptions import BENCHMARK15
from edgekit.data.transforms import IMAGENET, LITE0, Preprocessing
from edgekit.model.backbones.base import Backbone
from edgekit.model.backbones.import_path import is_import_path
from edgekit.model.backbones.imported import ImportedBackbone
from edgekit.model.backbones.registry import check_name, create_backbone
from edgekit.model.backbones.resnet import ResNet
from edgekit.model.backbones.timm import TimmBackbone
from edgekit.model.card import (
    TIMM_PREFIX,
    ModelCard,
    TrainingProtocol,
    card_from_json,
    numbered_classes,
)
from edgekit.model.config import VQSAConfig
from edgekit.model.foreign import Recognized, State, recognize, recognize_named
from edgekit.model.untrusted import check_tensors, check_unpacked, no_larger_than
from edgekit.model.vqsa import VQSA
from edgekit.model.weights import fill_model, rows_of, shape_of

_CARD_KEY = "edgekit"
_WRAPPERS = ("model", "state_dict", "model_state_dict")  # where trainers put the weights
_PREFIXES = ("module.", "_orig_mod.")  # DataParallel, torch.compile


# What torch's and safetensors' readers raise on damaged files.
_DAMAGE = (*DAMAGE, AssertionError, AttributeError)


class Loaded(NamedTuple):
    """A model ready to run, its card, and notes for the user about how it was loaded."""

    model: VQSA
    card: ModelCard
    notes: tuple[str, ...]


def save_checkpoint(path: Path, model: VQSA, card: ModelCard) -> None:
    """Write weights and card to ``path`` atomically."""
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    stored: set[int] = set()
    for key, value in state.items():  # safetensors takes no weights that two layers share
        if value.untyped_storage().data_ptr() in stored:
            state[key] = value.clone()
        stored.add(state[key].untyped_storage().data_ptr())
    write_bytes(path, safetensors.torch.save(state, metadata={_CARD_KEY: card.to_json()}))


def load_checkpoint(
    path: Path,
    *,
    backbone: str | None = None,
    classes: Sequence[str] | None = None,
    to_train: bool = False,
    size: tuple[int, int] | None = None,
) -> Loaded:
    """Load any layout that edgekit knows, in evaluation mode.

    ``backbone`` is needed for plain timm checkpoints, and wherever the backbone is imported from
    outside edgekit: a file's own word is not enough to run that code. ``classes`` are names for a
    file that has none. A plain classifier is taken as it is, without codes. ``to_train`` also takes
    a file without a classifier, and gives it one of a single class, which training replaces.
    ``size`` is that of the images, for a named backbone: plain files do not say.
    """
    state, card = read_checkpoint(path)
    if card is not None:
        _check_confirmed(path, card, backbone)
        loaded = _load_own(path, state, card)
    else:
        named = _named_backbone(backbone, size, state)
        if named is not None:
            assert backbone is not None
            recognized = recognize_named(state, backbone, named.prefix, named.classifiers)
        else:
            recognized = recognize(state, str(path))
            if backbone not in (None, recognized.backbone):
                raise UsageError(
                    f"{path} holds a {recognized.backbone}, not the {backbone} asked for"
                )
        body = named or create_backbone(recognized.backbone)
        if recognized.layout == "authors":
            loaded = _load_authors(path, recognized, body)
        else:
            loaded = _load_plain(path, recognized, body, to_train=to_train)
    if classes is not None:
        loaded = _rename_classes(path, loaded, tuple(classes))
    loaded.model.eval()
    return loaded


def read_checkpoint(path: Path) -> tuple[State, ModelCard | None]:
    """The raw tensors of a file and, if it is one of ours, its card."""
    try:
        with open_regular(path) as stream:
            start = stream.read(9)
    except OSError as error:
        raise UsageError(f"cannot read checkpoint {path}: {error.strerror}") from error
    # safetensors: eight bytes of header length, then JSON
    if start[8:9] == b"{" or path.suffix == ".safetensors":
        state, card = _read_safetensors(path)
    else:
        state, card = _read_torch(path), None
    check_tensors(state, path)
    return state, card


def default_preprocessing(backbone: Backbone) -> Preprocessing:
    """What the backbone's pretrained weights expect."""
    if isinstance(backbone, TimmBackbone):
        return Preprocessing(
            size=backbone.input_size,
            crop_ratio=backbone.crop_ratio,
            interpolation=backbone.interpolation,
            mean=tuple(255 * value for value in backbone.mean),
            std=tuple(255 * value for value in backbone.std),
        )
    return IMAGENET if isinstance(backbone, ResNet | ImportedBackbone) else LITE0


def _read_safetensors(path: Path) -> tuple[State, ModelCard | None]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
    except (safetensors.SafetensorError, OSError, *_DAMAGE) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path} is damaged or truncated: {reason}") from error
    if _CARD_KEY not in metadata:
        return _strip_prefixes(state), None
    return state, card_from_json(metadata[_CARD_KEY], str(path))


def _read_torch(path: Path) -> State:
    """A torch.save file, read with weights_only: pickled code is refused, not run."""
    try:
        with open_regular(path) as stream, warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # torch's advice on pickles and storages is not for users
            check_unpacked(stream, path)
            document: Any = torch.load(stream, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL (\S+)", str(error))
        if code:
            raise UsageError(
                f"{path} holds Python objects ({code[1]}), which are never loaded: re-save it "
                "with torch.save(model.state_dict(), ...)"
            ) from error
        raise UsageError(
            f"{path} is not a PyTorch or safetensors checkpoint, or is damaged"
        ) from error
    except _DAMAGE as error:
        raise UsageError(f"{path} is damaged or truncated: PyTorch cannot read it") from error
    for wrapper in _WRAPPERS:
        if isinstance(document, Mapping) and isinstance(document.get(wrapper), Mapping):
            document = document[wrapper]
            break
    if not isinstance(document, Mapping):
        raise UsageError(f"{path} holds a {type(document).__name__}, not a dict of weights")
    if not document:
        raise UsageError(f"{path} holds no weights at all")
    for key, value in document.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise UsageError(
                f"{path}: key {key!r} holds a {type(value).__name__}, expected a tensor: re-save "
                "it with torch.save(model.state_dict(), ...)"
            )
    return _strip_prefixes(dict(document))


def _strip_prefixes(state: State) -> State:
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _load_own(path: Path, state: State, card: ModelCard) -> Loaded:
    sizes = {"head.classifier.weight": len(card.classes)}
    if card.vqsa.output != "none":
        sizes["head.codebook.embeddings"] = card.vqsa.codebook_size
    for key, rows in sizes.items():  # these alone could make the model arbitrarily large
        if key not in state:
            raise UsageError(f"{path}: key '{key}' is missing, expected {rows} rows")
        if state[key].shape[:1] != (rows,):
            raise UsageError(
                f"{path}: key '{key}' has shape {shape_of(state[key])}, expected {rows} rows"
            )
    imported = None
    if is_import_path(card.backbone):  # `_check_confirmed`; the user's own code has no limit
        imported = create_backbone(card.backbone, card.preprocessing.size)
    with no_larger_than(state, str(path)):
        backbone = imported or create_backbone(card.backbone, card.preprocessing.size)
        model = VQSA(backbone, len(card.classes), card.vqsa)
    fill_model(model, state, str, str(path))
    return Loaded(model, card, ())


def _load_authors(path: Path, recognized: Recognized, backbone: Backbone) -> Loaded:
    size = rows_of(recognized, "head.codebook.embeddings", str(path))
    classes = numbered_classes(rows_of(recognized, "head.classifier.weight", str(path)))
    config = VQSAConfig(codebook_size=size)
    model = VQSA(backbone, len(classes), config)
    fill_model(model, recognized.state, recognized.theirs, str(path))
    card = ModelCard(
        backbone=recognized.backbone,
        width=model.head.width,
        classes=classes,
        preprocessing=IMAGENET,
        vqsa=config,
        training=TrainingProtocol(
            seen=BENCHMARK15, note="the released script trains on the benchmark's own corruptions"
        ),
        origin="the authors' released layout",
    )
    note = (
        f"the authors' released layout: {recognized.backbone}, N = {size}, {len(classes)} classes"
    )
    return Loaded(model, card, (note,))


def _load_plain(
    path: Path, recognized: Recognized, backbone: Backbone, *, to_train: bool
) -> Loaded:
    """A plain classifier: its backbone and its own last layer, and no codes."""
    key, name = "head.classifier.weight", recognized.backbone
    has_classifier = key in recognized.state
    if not (has_classifier or to_train):
        raise UsageError(
            f"{path} has no classifier: 'edgekit train --weights {path} --backbone {name}' trains "
            "one"
        )
    count = rows_of(recognized, key, str(path)) if has_classifier else 1
    config = VQSAConfig(output="none")
    model = VQSA(backbone, count, config)
    width = model.head.width
    if has_classifier and recognized.state[key].shape[1] != width:
        raise UsageError(
            f"{path}: key '{recognized.theirs(key)}' works on {recognized.state[key].shape[1]} "
            f"values, and {name} pools {width}: export the whole network as ONNX, for 'edgekit "
            "calibrate model.onnx'"
        )
    untrained = set() if has_classifier else {key, "head.classifier.bias"}
    fill_model(model, recognized.state, recognized.theirs, str(path), untrained)
    card = ModelCard(
        backbone=name,
        width=width,
        classes=numbered_classes(count),
        preprocessing=default_preprocessing(backbone),
        vqsa=config,
        origin=f"a plain {name} classifier",
    )
    note = (
        f"a plain {name} classifier, taken as it is: it has no codes ('edgekit train --weights "
        f"{path} --backbone {name}' trains a VQ-SA head for it)"
    )
    return Loaded(model, card, (note,))


def _rename_classes(path: Path, loaded: Loaded, classes: tuple[str, ...]) -> Loaded:
    count = len(loaded.card.classes)
    if count != len(classes):
        raise UsageError(
            f"{path} classifies {count} classes, the labels name {len(classes)}: give its own "
            "labels"
        )
    card = dataclasses.replace(loaded.card, classes=classes)
    return Loaded(loaded.model, card, loaded.notes)


def _named_backbone(
    name: str | None, size: tuple[int, int] | None, state: State
) -> TimmBackbone | ImportedBackbone | None:
    """The backbone of a file that does not say what it holds, if the user's name is needed."""
    if name is None:
        return None
    if is_import_path(name):
        return ImportedBackbone(name, size)
    if name.startswith(TIMM_PREFIX):
        backbone = TimmBackbone(name.removeprefix(TIMM_PREFIX))
        if size is None or backbone.fits(state):
            return backbone
        return TimmBackbone(backbone.name, size)
    check_name(name)
    return None


def _check_confirmed(path: Path, card: ModelCard, backbone: str | None) -> None:
    """A file may name a backbone to import, which runs its code; only the user may say so."""
    named = card.backbone
    if backbone == named or not any(map(is_import_path, (named, backbone or ""))):
        return
    if not is_import_path(named):
        raise UsageError(f"{path} holds a {named}, not {backbone}: leave out --backbone")
    other = "" if backbone is None else f", not on {backbone}"
    raise UsageError(
        f"{path} is built on {named}{other}: that is code outside the file, which edgekit imports "
        f"only when you say so: if you trust it, add --backbone {named} (to 'edgekit export', for "
        "a command without that option)"
    )
