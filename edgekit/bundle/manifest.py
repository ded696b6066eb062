"""``manifest.json``: what a bundle is, what it needs, and the checksum of every file in it.

The manifest guards itself, too: ``digest`` covers all of it except ``created``, the only field that
differs between two builds of the same thing. Values come from an untrusted file, so every field's
type is checked, and names must be plain file names.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, Final, Literal, get_args

from edgekit.core.errors import UsageError
from edgekit.core.json_schema import Describe, Schema, merged
from edgekit.core.typed_toml import from_dict, nearest
from edgekit.data.transforms import Preprocessing
from edgekit.targets.descriptor import Descriptor, descriptor_from_manifest

FORMAT_VERSION: Final = 1
MANIFEST: Final = "manifest.json"
LABELS: Final = "labels.txt"
FIELD: Final = "field.json"
"""What a monitor of the deployed model compares with."""

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,199}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CREATED = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
# A release as Python packages write it. It becomes a folder's name on devices and part of commands
# to paste: digits, dots and a known suffix are harmless there.
_RELEASE = re.compile(
    r"[0-9]{1,6}(\.[0-9]{1,6}){1,3}((a|b|rc|\.dev|\.post)[0-9]{1,12})?"
    r"(\+[a-z0-9]{1,20}(\.[a-z0-9]{1,20}){0,3})?"
)
_MAIN_SUFFIXES: Final = {
    "openvino": (".xml",),
    "onnxruntime": (".onnx",),
    "tensorrt": (".onnx", ".plan"),
}
_LONGEST_MESSAGE: Final = 600  # characters; a message may quote a long value
_MOST_DIGITS: Final = 18  # of a whole number, to fit into 64 bits
_TOOLS = ("edgekit", "torch", "nncf", "onnx", "openvino", "onnxruntime", "numpy", "pillow")


RuntimeName = Literal["openvino", "onnxruntime", "tensorrt"]


class BundleError(UsageError):
    """The bundle is refused: damaged, incomplete, or not made for this edgekit or machine."""


@dataclass(frozen=True)
class FileEntry:
    """Size and checksum of one file."""

    sha256: str
    size: int  # bytes


@dataclass(frozen=True)
class RuntimeNeed:
    """The package that executes the model: exactly this release, or this or a later one."""

    name: RuntimeName
    version: str
    match: Literal["exact", "same-or-newer"]

    def __post_init__(self) -> None:
        """Refuse any other name and version: both become folders and commands."""
        if self.name not in get_args(RuntimeName):
            known = ", ".join(get_args(RuntimeName))
            raise UsageError(f"the runtime {self.name!r} is unknown (known: {known})")
        if not _RELEASE.fullmatch(self.version):
            raise UsageError(f"{self.version!r} is not a release of {self.name}: do not trust it")

    @property
    def requirement(self) -> str:
        """The requirement for pip."""
        return f"{self.name}{'==' if self.match == 'exact' else '>='}{self.version}"


@dataclass(frozen=True)
class ModelInput:
    """The deployed graph's input: RGB images at the model's size, normalized inside the graph."""

    name: str
    height: int
    width: int
    dtype: Literal["uint8"] = "uint8"
    layout: Literal["NHWC"] = "NHWC"
    color: Literal["RGB"] = "RGB"


@dataclass(frozen=True)
class Source:
    """SHA-256 hashes of what the bundle was made from; "" where there was none."""

    checkpoint: str = ""
    recipe: str = ""
    calibration_images: str = ""


@dataclass(frozen=True)
class Manifest:
    """Everything a bundle declares about itself."""

    model: Mapping[str, Any]
    """The model card without its classes and preprocessing; for people, not used to run."""
    classes: int
    preprocessing: Preprocessing
    input: ModelInput
    target: Descriptor
    arch: str
    """The architecture of the plugins inside; "any" without plugins."""
    main: str
    """The file that the runtime opens."""
    plugins: tuple[str, ...]
    runtime: RuntimeNeed
    versions: Mapping[str, str] = field(default_factory=dict)
    """Releases of the tools used in the build."""
    source: Source = field(default_factory=Source)
    rebuild: str = ""
    """The command that builds it again; `rebuild_line` is the form to show."""
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    sections: Mapping[str, Any] = field(default_factory=dict)
    """How it was built, guarded and measured, as the edgekit that did so wrote it: ``build``,
    ``parity`` and ``bench`` have schemas of their own."""
    created: str = ""

    def is_essential(self, name: str) -> bool:
        """Whether a file takes part in running the model; IR weights lie beside their graph."""
        stem = self.main.rsplit(".", 1)[0]
        return name == LABELS or name in self.plugins or name.rsplit(".", 1)[0] == stem

    def identity(self) -> str:
        """SHA-256 of everything that determines its results: no summaries, reports or date."""
        files = {name: entry for name, entry in self.files.items() if self.is_essential(name)}
        return _digest(dataclasses.replace(self, sections={}, files=files).to_dict())

    def rebuild_line(self) -> str:
        """`rebuild` in a form that is safe to paste: one edgekit command, or ""."""
        try:
            words = shlex.split(self.rebuild)
        except ValueError:  # an open quote
            words = self.rebuild.split()
        if words[:2] != ["edgekit", "build"] or not self.rebuild.isprintable():
            return ""
        return shlex.join(words)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without the digest."""
        document = dataclasses.asdict(self)
        document["preprocessing"] = self.preprocessing.to_dict()
        return {"format_version": FORMAT_VERSION, **document}

    @classmethod
    def json_schema(cls, describe: Describe) -> Schema:
        """Of `to_dict`."""
        number = {
            "const": FORMAT_VERSION,
            "description": "The bundle's format; a bundle of another one is refused.",
        }
        added = {"properties": {"format_version": number}, "required": ["format_version"]}
        return merged(describe(cls), added)

    def to_json(self) -> str:
        """The text of ``manifest.json``; equal manifests give equal text."""
        document = self.to_dict()
        return _render({**document, "digest": _digest(document)})


def parse_manifest(data: bytes, source: str) -> Manifest:
    """The inverse of `Manifest.to_json`; ``source`` is what error messages call the bundle."""
    try:
        return _parse(data, source)
    except BundleError as error:
        text = " ".join(str(error).split())  # it may quote a value of any length and content
        if text == str(error) and len(text) <= len(source) + _LONGEST_MESSAGE:
            raise
        raise BundleError(text[: len(source) + _LONGEST_MESSAGE]) from error


def _parse(data: bytes, source: str) -> Manifest:
    try:
        document = json.loads(data.decode("utf-8"), parse_int=_whole_number)
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or nested too deep
        raise BundleError(f"{source}: {MANIFEST} is damaged: copy the bundle again") from error
    if not isinstance(document, dict) or "format_version" not in document:
        raise BundleError(f"{source}: {MANIFEST} does not describe an edgekit bundle")
    version = document.pop("format_version")
    if version != FORMAT_VERSION:
        raise BundleError(
            f"{source}: bundle format {version}, this edgekit reads {FORMAT_VERSION}: "
            "use the edgekit that wrote it, or build it again"
        )
    digest = document.pop("digest", None)
    whole = {"format_version": version, **document}
    try:
        intact = digest == _digest(whole) and _render({**whole, "digest": digest}).encode() == data
    except (UsageError, ValueError, RecursionError):  # values that we never write
        intact = False
    if not intact:
        raise BundleError(
            f"{source}: {MANIFEST} was changed after it was written: copy the bundle again"
        )
    return _from_document(document, f"{source}: {MANIFEST}")


def is_file_name(name: str) -> bool:
    """Whether a bundle may hold a file of this name: no folders, nothing hidden."""
    return _FILE_NAME.fullmatch(name) is not None


def creation_time() -> str:
    """The current UTC time, or SOURCE_DATE_EPOCH for reproducible builds."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    try:
        seconds = int(text) if text else int(time.time())
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(
            f"SOURCE_DATE_EPOCH is {text!r}, expected seconds since 1970 as a whole number"
        ) from error


def tool_versions() -> dict[str, str]:
    """The installed releases of the tools that shape a bundle."""
    versions = {}
    for name in _TOOLS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _whole_number(text: str) -> int:
    if len(text.lstrip("-")) > _MOST_DIGITS:
        raise ValueError("a number that is too large")
    return int(text)


def _render(document: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"{MANIFEST} takes plain JSON values only: {error}") from error
    return text + "\n"


def _digest(document: Mapping[str, Any]) -> str:
    covered = {key: value for key, value in document.items() if key not in ("created", "digest")}
    text = json.dumps(covered, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _from_document(document: dict[str, Any], source: str) -> Manifest:
    names = [field.name for field in dataclasses.fields(Manifest)]
    for name in document:
        if name not in names:
            raise BundleError(f"{source}: unknown key '{name}'{nearest(name, names)}")
    for name in names:
        if name not in document:
            raise BundleError(f"{source}: missing key '{name}'")
    take = _Taker(document, source)
    try:
        manifest = Manifest(
            model=take.table("model"),
            classes=take.number("classes"),
            preprocessing=Preprocessing.from_dict(take.table("preprocessing")),
            input=from_dict(ModelInput, take.table("input"), source),
            target=descriptor_from_manifest(take.table("target"), source),
            arch=take.text("arch"),
            main=take.text("main"),
            plugins=tuple(take.texts("plugins")),
            runtime=from_dict(RuntimeNeed, take.table("runtime"), source),
            versions={key: str(value) for key, value in take.table("versions").items()},
            source=from_dict(Source, take.table("source"), source),
            rebuild=take.text("rebuild"),
            files={
                name: from_dict(FileEntry, entry, source)
                for name, entry in take.tables("files").items()
            },
            sections=take.table("sections"),
            created=take.text("created"),
        )
    except BundleError:
        raise
    except UsageError as error:
        text = str(error)
        raise BundleError(text if text.startswith(source) else f"{source}: {text}") from error
    _check(manifest, source)
    return manifest


def _check(manifest: Manifest, source: str) -> None:
    for name, entry in manifest.files.items():
        if not is_file_name(name) or name == MANIFEST:
            raise BundleError(f"{source}: {name!r} is not a plain file name: do not trust it")
        if not _SHA256.fullmatch(entry.sha256) or entry.size < 0:
            raise BundleError(f"{source}: the checksum or size of {name} is malformed")
    for name in (manifest.main, LABELS, *manifest.plugins):
        if name not in manifest.files:
            raise BundleError(f"{source}: {name!r} is required but not among its files")
    _check_main(manifest, source)
    if manifest.runtime.name != manifest.target.backend:
        raise BundleError(
            f"{source}: its target is for {manifest.target.backend}, its runtime is "
            f"{manifest.runtime.name}: do not trust it"
        )
    if not _CREATED.fullmatch(manifest.created):
        raise BundleError(f"{source}: 'created' is {manifest.created!r}, not a time in UTC")
    if (manifest.input.height, manifest.input.width) != manifest.preprocessing.size:
        raise BundleError(f"{source}: input and preprocessing disagree on the size of images")


def _check_main(manifest: Manifest, source: str) -> None:
    """The main file must be of the runtime's kind, and the files read with it must be listed."""
    kinds = _MAIN_SUFFIXES[manifest.target.backend]
    stem, dot, suffix = manifest.main.rpartition(".")
    if dot + suffix not in kinds:
        raise BundleError(
            f"{source}: {manifest.main!r} is not a file that {manifest.target.backend} opens "
            f"({', '.join(kinds)}): do not trust it"
        )
    # OpenVINO reads the weights beside a graph without being given their name.
    if suffix == "xml" and f"{stem}.bin" not in manifest.files:
        raise BundleError(f"{source}: the weights {stem}.bin are not among its files")


@dataclass(frozen=True)
class _Taker:
    """Takes values out of a JSON object, each with its type checked."""

    document: Mapping[str, Any]
    source: str

    def text(self, key: str) -> str:
        value = self.document[key]
        if not isinstance(value, str):
            raise self._wrong(key, "text", value)
        return value

    def texts(self, key: str) -> list[str]:
        value = self.document[key]
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._wrong(key, "a list of texts", value)
        return value

    def number(self, key: str) -> int:
        value = self.document[key]
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self._wrong(key, "a whole number from 1", value)
        return value

    def table(self, key: str) -> dict[str, Any]:
        value = self.document[key]
        if not isinstance(value, dict):
            raise self._wrong(key, "an object", value)
        return value

    def tables(self, key: str) -> dict[str, dict[str, Any]]:
        value = self.table(key)
        for name, entry in value.items():
            if not isinstance(entry, dict):
                raise self._wrong(f"{key}.{name}", "an object", entry)
        return value

    def _wrong(self, key: str, expected: str, value: object) -> BundleError:
        return BundleError(f"{self.source}: '{key}' must be {expected}, not {value!r}")
