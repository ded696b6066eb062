"""The folder of ``parity --worst``: the images whose answer changed, and one page with all of them.

A later comparison replaces the folder whole, if every file in it is, to the byte, what this user's
edgekit wrote: the cache remembers that. Nothing that a folder holds can claim it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from edgekit.core.console import Console, json_text, printable
from edgekit.core.documents import Document
from edgekit.core.errors import UsageError
from edgekit.core.files import file_sha256, make_folder, read_regular, write_text
from edgekit.core.folders import check_writable, locked, replace_folder
from edgekit.parity.examples import Answered, Codes, Example
from edgekit.report.markup import escaped, paragraph, whole_page
from edgekit.report.sections.look import cards

if TYPE_CHECKING:
    from edgekit.parity.compare import Comparison

WORST: Final = "worst.json"
PAGE: Final = "index.html"
MOST: Final = 24
"""Images, unless told otherwise."""

_LONGEST_KEY: Final = 80
_CACHED: Final = "worst"  # the folder's name in the cache


@dataclass(frozen=True)
class WorstImage:
    """An image, corrupted, whose answer changed."""

    file: str
    image: str
    """Its name in the data."""
    corruption: str
    """"clean" for one that changed without any."""
    severity: int
    label: str | None
    reference: Answered
    candidate: Answered
    codes: Codes | None


@dataclass(frozen=True)
class WorstImages(Document):
    """The images of the folder, the most confident loss first, and how many answers changed."""

    SCHEMA: ClassVar = 1

    measured: str
    data: str
    seed: int
    reference: str
    candidate: str
    answers: int
    """Clean and corrupted images that both models answered."""
    lost: int
    """The reference was right, the candidate is not."""
    gained: int
    """The candidate is right, the reference was not."""
    moved: int
    """Both are wrong in different ways, or there are no labels."""
    images: tuple[WorstImage, ...]


def check_place(folder: Path, cache: Path) -> None:
    """Refuse a place that holds anything else or cannot be written, before hours of comparing."""
    check_writable(folder)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--worst: {folder} is a file: name a folder")
    if folder.is_dir() and any(folder.iterdir()) and not _ours(folder, cache):
        raise UsageError(
            f"--worst: {folder} holds more than what 'edgekit parity --worst' wrote there: name a "
            "folder of its own"
        )


def write_worst(folder: Path, comparison: Comparison, console: Console, cache: Path) -> None:
    """Write the images, their list and the page; a former folder of ours is replaced."""
    from edgekit.parity.example_images import make_examples

    changes, document = comparison.changes, comparison.document
    examples = make_examples(comparison, changes.worst())
    names = _file_names(examples)
    listing = WorstImages(
        measured=document.measured,
        data=document.data,
        seed=document.seed,
        reference=document.reference,
        candidate=document.candidate,
        answers=changes.answers,
        lost=changes.counts["lost"],
        gained=changes.counts["gained"],
        moved=changes.counts["moved"],
        images=tuple(map(_image, names, examples)),
    )
    page = worst_page(listing, examples)

    def fill(new: Path) -> None:
        for name, one in zip(names, examples, strict=True):
            (new / name).write_bytes(one.corrupted.data())
        (new / WORST).write_text(json_text(listing) + "\n", encoding="utf-8")
        (new / PAGE).write_text(printable(page), encoding="utf-8")
        _remember(new, cache)

    make_folder(folder.parent)
    with locked(folder):
        check_place(folder, cache)  # again: the comparison may have taken hours
        replace_folder(folder, fill)
    if not changes.changed:
        console.info(f"worst: no answer changed; {folder / PAGE} says so")
        return
    console.info(
        f"worst: wrote {len(names):,} of {changes.changed:,} changed answers to {folder}, with "
        f"{PAGE}"
    )


def worst_page(listing: WorstImages, examples: Sequence[Example]) -> str:
    """The contact sheet; self-contained, like the other pages."""
    changed = listing.lost + listing.gained + listing.moved
    title = f"What changed in {listing.candidate}"
    parts = [
        f"<h1>{escaped(title)}</h1>",
        paragraph(
            f"Reference: {listing.reference}. Data: {listing.data}, seed {listing.seed}; measured "
            f"{listing.measured}."
        ),
        paragraph(_summary(listing, changed)),
        cards(examples),
    ]
    return whole_page(title, [part for part in parts if part])


def _summary(listing: WorstImages, changed: int) -> str:
    if not changed:
        return f"None of {listing.answers:,} answers changed."
    of = f"{changed:,} of {listing.answers:,} answers changed"
    if all(one.label is None for one in listing.images):
        kinds = "there are no labels to say which was right"
    else:
        kinds = (
            f"{listing.lost:,} right ones were lost, {listing.gained:,} wrong ones mended, and "
            f"{listing.moved:,} are wrong in another way"
        )
    return (
        f"{of}: {kinds}. Below are {len(listing.images):,}, losses first, and of these the ones "
        "first whose answer lost the most probability."
    )


def _image(name: str, one: Example) -> WorstImage:
    said = one.corrupted
    return WorstImage(
        file=name,
        image=one.image,
        corruption=one.corruption,
        severity=one.severity,
        label=one.label,
        reference=said.reference,
        candidate=said.candidate,
        codes=said.codes,
    )


def _file_names(examples: Sequence[Example]) -> list[str]:
    """Image, corruption and severity, in letters that every file system takes; none twice."""
    names: list[str] = []
    for one in examples:
        key = re.sub(r"[^A-Za-z0-9.-]+", "_", one.image).strip("._")[-_LONGEST_KEY:] or "image"
        stem = f"{key}.{one.corruption}" + (f".{one.severity}" if one.severity else "")
        name, number = f"{stem}.jpg", 2
        while name in names:
            name, number = f"{stem}.{number}.jpg", number + 1
        names.append(name)
    return names


def _remember(folder: Path, cache: Path) -> None:
    """Note in the cache what was written; it is found again by the hash of the list."""
    lines = [f"{file_sha256(path)} {path.name}" for path in sorted(folder.iterdir())]
    write_text(cache / _CACHED / file_sha256(folder / WORST), "\n".join(lines))


def _ours(folder: Path, cache: Path) -> bool:
    """Whether the folder is as edgekit wrote it."""
    try:
        listed = hashlib.sha256(read_regular(folder / WORST)).hexdigest()
        written = read_regular(cache / _CACHED / listed).decode("utf-8").splitlines()
        files = sorted(folder.iterdir())
        if len(files) != len(written):
            return False
        hashes = (hashlib.sha256(read_regular(path)).hexdigest() for path in files)
        present = [f"{sha256} {path.name}" for sha256, path in zip(hashes, files, strict=True)]
    except (OSError, UsageError):  # no list, none of ours, or a pipe, a link to nowhere, gigabytes
        return False
    return present == written
