"""Bundles as files: refused in one line where they were changed."""

import json
import random
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.bundle.store import (
    open_bundle,
    update_bundle,
    update_manifest_section,
    write_bundle,
    zip_bundle,
)
from edgekit.core.errors import UsageError
from edgekit.core.host import host_arch
from edgekit.core.resources import resource
from edgekit.targets.descriptor import load_descriptor
from tests.bundle_files import LABELS, PLUGIN, about, files, refusal, rewrite, write


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))


def test_a_bundle_comes_back_as_it_was_written(tmp_path: Path) -> None:
    written = write_bundle(tmp_path / "b", about(plugin=True), files(plugin=True), LABELS)
    opened = open_bundle(tmp_path / "b")
    assert opened.manifest == written
    assert opened.labels == LABELS
    assert opened.plugins() == (tmp_path / "b" / PLUGIN,)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["b"]
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) & 0o500 == 0o500


def test_labels_are_a_line_each(tmp_path: Path) -> None:
    write_bundle(tmp_path / "b", about(), files(), ["a  b", " c\nd\u2028e ", ""])
    assert open_bundle(tmp_path / "b").labels == ("a b", "c d e", "class 2")


def test_any_changed_byte_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "b", plugin=True)
    generator = random.Random(5)
    created = (path / "manifest.json").read_bytes().index(b'"created": "') + len(b'"created": "')
    for file in sorted(path.iterdir()):
        whole = file.read_bytes()
        for _ in range(60 if file.name == "manifest.json" else 4):
            at = generator.randrange(len(whole))
            if file.name == "manifest.json" and created <= at < created + 20:
                continue  # the declared exception
            changed = bytearray(whole)
            changed[at] ^= 1 << generator.randrange(8)
            file.write_bytes(changed)
            refusal(path)
        file.write_bytes(whole)
    open_bundle(path)


@pytest.mark.parametrize("name", ["model.bin", "labels.txt", PLUGIN])
def test_a_missing_or_cut_file_is_refused(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / "b", plugin=True)
    (path / name).write_bytes((path / name).read_bytes()[:-1])
    assert f"{name} does not match its manifest" in refusal(path)
    (path / name).unlink()
    assert f"{name} is missing" in refusal(path)


@pytest.mark.parametrize("name", ["evil.so", "libx.so.1.2", "X.DLL", "a.pyd", "b.dylib"])
def test_a_library_that_was_slipped_in_is_refused(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / "b")
    (path / "notes.md").write_text("other files are nobody's business")
    open_bundle(path)
    (path / name).write_bytes(b"")
    assert f"{name} is a library that its manifest does not list" in refusal(path)


def test_links_are_refused_and_a_link_to_the_bundle_is_not(tmp_path: Path) -> None:
    path = write(tmp_path / "b")
    (tmp_path / "link").symlink_to(path)
    assert open_bundle(tmp_path / "link").labels == LABELS
    (tmp_path / "weights").write_bytes(b"weights")
    (path / "model.bin").unlink()
    (path / "model.bin").symlink_to(tmp_path / "weights")
    assert "model.bin is not a regular file" in refusal(path)


@pytest.mark.parametrize(
    "name", ["../model.bin", "/etc/passwd", "a/b", "..", ".hidden", "", "a\\b"]
)
def test_names_that_lead_elsewhere_are_refused(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / "b")

    def rename(document: dict[str, object]) -> None:
        entries = document["files"]
        assert isinstance(entries, dict)
        entries[name] = entries["model.bin"]

    rewrite(path, rename)
    assert "is not a plain file name" in refusal(path)
    with pytest.raises(UsageError, match="cannot be a file of a bundle"):
        write_bundle(tmp_path / "c", about(), {**files(), name: b""}, LABELS)


def test_another_format_version_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "b")
    rewrite(path, lambda document: document.update(format_version=2, something="new"))
    assert "bundle format 2, this edgekit reads 1" in refusal(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"main": "absent.xml"}, "'absent.xml' is required but not among its files"),
        ({"plugins": ["absent.so"]}, "'absent.so' is required"),
        ({"classes": "3"}, "'classes' must be a whole number"),
        ({"classes": 4}, "labels.txt has 3 names, the manifest says 4"),
        ({"files": []}, "'files' must be an object"),
        ({"model": None}, "'model' must be an object"),
        ({"created": "yesterday"}, "not a time in UTC"),
        ({"surprise": 1}, "unknown key 'surprise'"),
        ({"input": {"name": "images", "height": 9, "width": 8}}, "disagree on the size"),
        ({"preprocessing": {"size": [8, 8]}}, "missing key"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(
    change: dict[str, object], message: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "b")
    rewrite(path, lambda document: document.update(change))
    assert message in refusal(path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '"x"',
        "{" * 100_000,
        '{"format_version": 1, "a": "\\ud800"}',
        "\xff\xfe",
        '{"format_version": NaN}',
    ],
)
def test_a_manifest_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    path = write(tmp_path / "b")
    (path / "manifest.json").write_bytes(text.encode("latin-1"))
    refusal(path)


def test_another_architecture_is_refused_only_with_a_plugin(tmp_path: Path) -> None:
    other = "aarch64" if host_arch() == "x86_64" else "x86_64"
    elf = bytearray(resource(f"_native/{PLUGIN}").read_bytes())
    elf[18:20] = {"x86_64": b"\x3e\0", "aarch64": b"\xb7\0"}[other]
    contents = {**files(), PLUGIN: bytes(elf)}
    with pytest.raises(UsageError, match=f"is built for {other}, the bundle for {host_arch()}"):
        write_bundle(tmp_path / "b", about(plugin=True), contents, LABELS)
    write_bundle(tmp_path / "b", replace(about(plugin=True), arch=other), contents, LABELS)
    assert f"was built for {other}, this machine is {host_arch()}" in refusal(tmp_path / "b")
    write_bundle(
        tmp_path / "c", replace(about(), target=load_descriptor("openvino-arm")), files(), LABELS
    )
    open_bundle(tmp_path / "c")  # the graph alone runs anywhere


def test_only_declared_libraries_are_packed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not list as a plugin"):
        write_bundle(tmp_path / "b", about(), files(plugin=True), LABELS)
    with pytest.raises(UsageError, match="not a Linux library"):
        write_bundle(tmp_path / "b", about(plugin=True), {**files(), PLUGIN: b"text"}, LABELS)
    assert not (tmp_path / "b").exists()


def test_what_is_no_bundle_is_said(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    assert "has no manifest.json" in refusal(tmp_path / "empty")
    (tmp_path / "text.zip").write_text("text")
    assert "is damaged or not a .zip" in refusal(tmp_path / "text.zip")


def test_nothing_but_a_bundle_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_text("precious")
    (tmp_path / "file").write_text("precious")
    for name in ("photos", "file"):
        with pytest.raises(UsageError, match="exists and is not a bundle"):
            write(tmp_path / name)
    assert (tmp_path / "photos" / "one.jpg").read_text() == "precious"
    (tmp_path / "empty").mkdir()
    open_bundle(write(tmp_path / "empty"))
    write(tmp_path / "empty", weights=b"newer")
    assert (tmp_path / "empty" / "model.bin").read_bytes() == b"newer"


def test_a_link_stays_a_link_when_its_bundle_is_replaced(tmp_path: Path) -> None:
    write(tmp_path / "b")
    (tmp_path / "current").symlink_to("b")
    write(tmp_path / "current", weights=b"newer")
    assert (tmp_path / "current").is_symlink()
    assert (tmp_path / "b" / "model.bin").read_bytes() == b"newer"


def test_the_same_inputs_give_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    one, two = write(tmp_path / "one"), write(tmp_path / "two")
    assert json.loads((one / "manifest.json").read_text())["created"] == "2023-11-14T22:13:20Z"
    for file in one.iterdir():
        assert file.read_bytes() == (two / file.name).read_bytes()
    zip_bundle(one, tmp_path / "one.zip")
    write_bundle(tmp_path / "two.zip", about(), files(), LABELS, zipped=True)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000001")
    three = write(tmp_path / "three")
    first, third = ((path / "manifest.json").read_text().splitlines() for path in (one, three))
    different = [line for line, other in zip(first, third, strict=True) if line != other]
    assert different == ['  "created": "2023-11-14T22:13:20Z",']
    assert open_bundle(one).manifest.identity() == open_bundle(three).manifest.identity()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "soon")
    with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH is 'soon'"):
        write(tmp_path / "four")


def test_sections_change_neither_files_nor_identity(tmp_path: Path) -> None:
    path = write(tmp_path / "b")
    before = open_bundle(path).manifest
    update_manifest_section(path, "parity", {"verdict": "pass", "delta": -0.1})
    update_manifest_section(path, "bench", {"ms": 1.5})
    update_manifest_section(path, "bench", {"ms": 1.4})
    after = open_bundle(path).manifest
    assert after.sections == {"parity": {"verdict": "pass", "delta": -0.1}, "bench": {"ms": 1.4}}
    assert after.files == before.files
    assert after.identity() == before.identity()
    with pytest.raises(UsageError, match="plain JSON values"):
        update_manifest_section(path, "bench", {"ms": float("nan")})
    assert open_bundle(path).manifest == after


def test_reports_join_the_bundle_with_their_checksums(tmp_path: Path) -> None:
    path = write(tmp_path / "b")
    identity = open_bundle(path).manifest.identity()
    update_bundle(path, sections={"parity": {}}, reports={"parity.json": b"{}"})
    update_bundle(path, reports={"parity.json": b'{"v": 2}', "report.html": b"<html>"})
    opened = open_bundle(path)
    assert (path / "parity.json").read_bytes() == b'{"v": 2}'
    assert opened.manifest.files["report.html"].size == 6
    assert opened.manifest.identity() == identity
    (path / "report.html").write_bytes(b"<HTML>")
    assert "report.html does not match" in refusal(path)
    (path / "report.html").write_bytes(b"<html>")
    for name in ("model.bin", "labels.txt", "manifest.json", "../up", "x.so"):
        with pytest.raises(UsageError, match="cannot be a report"):
            update_bundle(path, reports={name: b""})
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["b"]


@pytest.mark.every_core
def test_updates_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "b")

    def update(number: int) -> None:
        if number % 2:
            update_manifest_section(path, f"s{number}", number)
        else:
            update_bundle(path, sections={f"s{number}": number}, reports={f"r{number}": b"x"})

    threads = [threading.Thread(target=update, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    opened = open_bundle(path).manifest
    assert opened.sections == {f"s{number}": number for number in range(12)}
    assert len(opened.files) == 3 + 6
