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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from edgekit.core.damage import DAMAGE
from edgekit.core.errors import UsageError
from edgekit.core.files import open_regular, write_bytes
from edgekit.core.typed_toml import meant
from edgekit.data.corruptions import BENCHMARK15
from edgekit.data.transforms import IMAGENET, LITE0, Preprocessing
from edgekit.model.backbones.base import Backbone
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
from edgekit.model.foreign import Recognized, State, recognize, recognize_timm
from edgekit.model.untrusted import check_tensors, check_unpacked, no_larger_than
from edgekit.model.vqsa import VQSA

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
    write_bytes(path, safetensors.torch.save(state, metadata={_CARD_KEY: card.to_json()}))


def load_checkpoint(
    path: Path,
    *,
    backbone: str | None = None,
    classes: Sequence[str] | None = None,
    to_train: bool = False,
) -> Loaded:
    """Load any layout that edgekit knows, in evaluation mode.

    ``backbone`` is needed only for plain timm checkpoints, ``classes`` are names for a file that
    has none. A plain classifier is taken as it is, without codes. ``to_train`` also takes a file
    without a classifier, and gives it one of a single class, which training replaces.
    """
    state, card = read_checkpoint(path)
    if card is not None:
        loaded = _load_own(path, state, card)
    else:
        timm_body = _timm_backbone(backbone)
        if timm_body is not None:
            assert backbone is not None
            recognized = recognize_timm(state, backbone, timm_body.classifiers)
        else:
            recognized = recognize(state, str(path))
            if backbone not in (None, recognized.backbone):
                raise UsageError(
                    f"{path} holds a {recognized.backbone}, not the {backbone} asked for"
                )
        body = timm_body or create_backbone(recognized.backbone)
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
    return IMAGENET if isinstance(backbone, ResNet) else LITE0


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
                f"{path}: key '{key}' has shape {_shape(state[key])}, expected {rows} rows"
            )
    with no_larger_than(state, str(path)):
        backbone = create_backbone(card.backbone, card.preprocessing.size)
        model = VQSA(backbone, len(card.classes), card.vqsa)
    _fill(model, state, str, str(path))
    return Loaded(model, card, ())


def _load_authors(path: Path, recognized: Recognized, backbone: Backbone) -> Loaded:
    size = _rows(recognized, "head.codebook.embeddings", str(path))
    classes = numbered_classes(_rows(recognized, "head.classifier.weight", str(path)))
    config = VQSAConfig(codebook_size=size)
    model = VQSA(backbone, len(classes), config)
    _fill(model, recognized.state, recognized.theirs, str(path))
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
    count = _rows(recognized, key, str(path)) if has_classifier else 1
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
    _fill(model, recognized.state, recognized.theirs, str(path), untrained)
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


def _rows(recognized: Recognized, key: str, source: str) -> int:
    if key not in recognized.state:
        raise UsageError(f"{source}: key '{recognized.theirs(key)}' is missing")
    tensor = recognized.state[key]
    if tensor.dim() != 2 or tensor.shape[0] < 1:
        raise UsageError(
            f"{source}: key '{recognized.theirs(key)}' has shape {_shape(tensor)}, expected a "
            "matrix"
        )
    return int(tensor.shape[0])


def _fill(
    model: VQSA,
    state: State,
    theirs: Callable[[str], str],
    source: str,
    untrained: set[str] | frozenset[str] = frozenset(),
) -> None:
    """Load ``state`` after checking every key; ``untrained`` ones may be missing.

    ``theirs`` translates our names into the file's.
    """
    _check(model.state_dict(), state, theirs, source, untrained)
    model.load_state_dict(state, strict=False)
    for key, tensor in model.state_dict().items():  # checked after the copy, which may overflow
        if key not in state or not tensor.is_floating_point():
            continue
        if not bool(torch.isfinite(tensor).all()):
            raise UsageError(
                f"{source}: key '{theirs(key)}' holds values beyond {tensor.dtype}: the training "
                "diverged, use an earlier checkpoint"
            )
        if key.endswith("running_var") and bool((tensor < 0).any()):
            raise UsageError(f"{source}: key '{theirs(key)}' holds negative variances")


def _check(
    expected: Mapping[str, Tensor],
    state: State,
    theirs: Callable[[str], str],
    source: str,
    untrained: set[str] | frozenset[str],
) -> None:
    """Refuse a ``state`` that does not fit the shapes and types of ``expected``."""
    for key in state:
        if key not in expected:
            their_keys = [theirs(name) for name in expected]
            raise UsageError(
                f"{source}: unknown key '{theirs(key)}'{meant(theirs(key), their_keys)}"
            )
    for key, tensor in expected.items():
        name = theirs(key)
        if key not in state:
            # A batch counter, which is not used with a fixed momentum, as all our layers have.
            if key in untrained or key.endswith("num_batches_tracked"):
                continue
            raise UsageError(f"{source}: key '{name}' is missing, expected {_shape(tensor)}")
        given = state[key]
        if given.shape != tensor.shape:
            raise UsageError(
                f"{source}: key '{name}' has shape {_shape(given)}, expected {_shape(tensor)}"
            )
        if given.is_floating_point() != tensor.is_floating_point():
            raise UsageError(
                f"{source}: key '{name}' holds {given.dtype} values, expected {tensor.dtype}"
            )
        if given.is_floating_point() and not bool(torch.isfinite(given).all()):
            raise UsageError(
                f"{source}: key '{name}' holds NaN or infinite values: the training diverged, "
                "use an earlier checkpoint"
            )


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"


def _timm_backbone(name: str | None) -> TimmBackbone | None:
    if name is None or not name.startswith(TIMM_PREFIX):
        if name is not None:
            check_name(name)
        return None
    return TimmBackbone(name.removeprefix(TIMM_PREFIX))
