"""Bundles as files: whole or not at all, and refused in one line where they were changed."""

import ctypes
import json
import random
import signal
import stat
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit import folders, manifest
from edgekit.bundle import (
    open_bundle,
    update_bundle,
    update_manifest_section,
    write_bundle,
    zip_bundle,
)
from edgekit.data.transforms import Preprocessing
from edgekit.descriptors import host_arch, load_descriptor
from edgekit.errors import EdgekitError, UsageError
from edgekit.manifest import BundleError, Manifest, ModelInput, RuntimeNeed, Source
from edgekit.resources import resource

LABELS = ("ant", "Biene", "chèvre")
PLUGIN = "libedgekit_codebook.so"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))


def about(*, plugin: bool = False) -> Manifest:
    return Manifest(
        model={"backbone": "tiny", "vqsa": {"codebook_size": 4}},
        classes=3,
        preprocessing=Preprocessing(size=(8, 8)),
        input=ModelInput("images", 8, 8),
        target=load_descriptor("cpu"),
        arch=host_arch() if plugin else "any",
        main="model.xml",
        plugins=(PLUGIN,) if plugin else (),
        runtime=RuntimeNeed("openvino", "2026.4.1", "exact"),
        versions={"edgekit": "0.1.0"},
        source=Source(checkpoint="ab" * 32),
        rebuild="edgekit build",
    )


def files(*, plugin: bool = False, weights: bytes = b"weights") -> dict[str, Path | bytes]:
    contents: dict[str, Path | bytes] = {"model.xml": b"<net/>", "model.bin": weights}
    if plugin:
        contents[PLUGIN] = resource(f"_native/{PLUGIN}")
    return contents


def write(path: Path, *, plugin: bool = False, weights: bytes = b"weights") -> Path:
    write_bundle(path, about(plugin=plugin), files(plugin=plugin, weights=weights), LABELS)
    return path


def rewrite(path: Path, change: Callable[[dict[str, object]], None]) -> None:
    """Change a manifest as somebody would who knows how to compute its digest."""
    document = json.loads((path / "manifest.json").read_text())
    change(document)
    document["digest"] = manifest._digest(document)
    (path / "manifest.json").write_text(manifest._render(document))


def refusal(path: Path) -> str:
    with pytest.raises(BundleError) as caught:
        open_bundle(path)
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    assert caught.value.exit_code == 2
    return text


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
    assert f"{name} differs from what its manifest says" in refusal(path)
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
        ({"main": "absent.xml"}, "'absent.xml' is needed and not among its files"),
        ({"plugins": ["absent.so"]}, "'absent.so' is needed"),
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
    with pytest.raises(UsageError, match="not among the plugins"):
        write_bundle(tmp_path / "b", about(), files(plugin=True), LABELS)
    with pytest.raises(UsageError, match="not a Linux library"):
        write_bundle(tmp_path / "b", about(plugin=True), {**files(), PLUGIN: b"text"}, LABELS)
    assert not (tmp_path / "b").exists()


def test_what_is_no_bundle_is_said(tmp_path: Path) -> None:
    assert "is not there" in refusal(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    assert "has no manifest.json" in refusal(tmp_path / "empty")
    (tmp_path / "text.zip").write_text("text")
    assert "is damaged or no .zip" in refusal(tmp_path / "text.zip")


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
    assert "report.html differs" in refusal(path)
    (path / "report.html").write_bytes(b"<html>")
    for name in ("model.bin", "labels.txt", "manifest.json", "../up", "x.so"):
        with pytest.raises(UsageError, match="cannot be a report"):
            update_bundle(path, reports={name: b""})
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["b"]


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


def test_a_zip_is_the_same_bundle(tmp_path: Path) -> None:
    path = write(tmp_path / "b", plugin=True)
    zip_bundle(path, tmp_path / "b.zip")
    opened = open_bundle(tmp_path / "b.zip")
    assert opened.manifest == open_bundle(path).manifest
    assert opened.path == tmp_path / "b.zip"
    first = (opened.folder / "model.bin").stat().st_ino
    assert (open_bundle(tmp_path / "b.zip").folder / "model.bin").stat().st_ino == first
    (opened.folder / "model.bin").write_bytes(b"spoiled in the cache")
    assert (open_bundle(tmp_path / "b.zip").folder / "model.bin").read_bytes() == b"weights"
    with pytest.raises(UsageError, match=r"is a \.zip"):
        update_manifest_section(tmp_path / "b.zip", "bench", {})
    (tmp_path / "folder.zip").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        write_bundle(tmp_path / "folder.zip", about(), files(), LABELS, zipped=True)


def test_a_zip_that_was_packed_again_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "b")
    with zipfile.ZipFile(tmp_path / "again.zip", "w", zipfile.ZIP_DEFLATED) as target:
        for file in path.iterdir():
            target.write(file, file.name)
    assert open_bundle(tmp_path / "again.zip").labels == LABELS


def test_any_changed_byte_of_a_zip_is_refused_or_harmless(tmp_path: Path) -> None:
    zip_bundle(write(tmp_path / "b"), tmp_path / "b.zip")
    expected = open_bundle(tmp_path / "b.zip").manifest
    whole = (tmp_path / "b.zip").read_bytes()
    generator = random.Random(3)
    refused = 0
    for _ in range(150):
        changed = bytearray(whole)
        changed[generator.randrange(len(whole))] ^= 1 << generator.randrange(8)
        (tmp_path / "c.zip").write_bytes(changed)
        try:
            # A date or a permission in the .zip's own tables may change, the content may not.
            opened = open_bundle(tmp_path / "c.zip")
            assert replace(opened.manifest, created="") == replace(expected, created="")
        except BundleError:
            refused += 1
    assert refused > 75


def test_a_malicious_zip_writes_nothing_outside(tmp_path: Path) -> None:
    path = write(tmp_path / "b")

    def attack(
        name: str, *, mode: int = 0o100644, data: bytes = b"evil", twice: bool = False
    ) -> None:
        target = tmp_path / "evil.zip"
        with zipfile.ZipFile(target, "w") as archive:
            for file in path.iterdir():
                archive.write(file, file.name)
            for _ in range(2 if twice else 1):
                info = zipfile.ZipInfo(name)
                info.external_attr = mode << 16
                archive.writestr(info, data)
        before = sorted(p for p in tmp_path.rglob("*"))
        refusal(target)
        after = sorted(p for p in tmp_path.rglob("*") if p.is_file() or p.is_symlink())
        assert [p for p in after if p not in before] == []

    (tmp_path / "cache" / "bundles").mkdir(parents=True)
    attack("../../escaped.txt")
    attack("/absolute.txt")
    attack("folder/inside.txt")
    attack("link", mode=0o120777, data=b"/etc/passwd")
    attack("extra.so")
    attack("extra.txt")
    with pytest.warns(UserWarning, match="Duplicate name"):
        attack("extra.txt", twice=True)


def test_a_zip_bomb_is_refused_before_it_unpacks(tmp_path: Path) -> None:
    write_bundle(tmp_path / "b", about(), files(weights=bytes(64 << 20)), LABELS)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as target:
        for file in (tmp_path / "b").iterdir():
            target.write(file, file.name)
    assert "far more than its size" in refusal(tmp_path / "bomb.zip")


def test_a_zip_needs_a_cache_that_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zip_bundle(write(tmp_path / "b"), tmp_path / "b.zip")
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(EdgekitError, match="set EDGEKIT_CACHE to a folder that can be written"):
        open_bundle(tmp_path / "b.zip")


def test_leftovers_of_killed_writers_go_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    dead, alive = tmp_path / ".b.dead.partial", tmp_path / ".b.alive.partial"
    unrelated = tmp_path / ".bb.other.partial"
    for path in (dead, alive, unrelated):
        path.mkdir()
        (path / "model.bin").write_bytes(b"half")
    with folders.locked(alive):
        write(tmp_path / "b")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        ".b.alive.partial",
        ".bb.other.partial",
        "b",
    ]
    write(tmp_path / "b")
    assert not alive.exists()


def test_a_write_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "b")
    before = open_bundle(path).manifest
    with pytest.raises(UsageError, match="cannot read"):
        write_bundle(path, about(), {**files(), "model.bin": tmp_path / "absent"}, LABELS)
    (tmp_path / "readonly").write_text("")
    with pytest.raises(EdgekitError, match="cannot write"):
        write(tmp_path / "readonly" / "b")
    assert open_bundle(path).manifest == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["b", "readonly"]


def test_where_folders_cannot_be_exchanged_nothing_is_lost_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "b")
    monkeypatch.setattr(folders, "exchange", lambda first, second: False)
    write(path, weights=b"newer")
    assert (path / "model.bin").read_bytes() == b"newer"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["b"]
    path.rename(tmp_path / ".b.previous")  # a writer died between the two renames
    assert open_bundle(path).folder.name == ".b.previous"
    write(path, weights=b"newest")
    assert (path / "model.bin").read_bytes() == b"newest"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["b"]


def test_exchange_is_available_on_this_machine(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    if not hasattr(ctypes.CDLL(None), "renameat2"):
        pytest.skip("this system's C library has no renameat2")
    assert folders.exchange(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a" / "file").read_text() == "b"


WRITER = """
import itertools, sys
from pathlib import Path
from edgekit import folders
from edgekit.bundle import update_bundle, write_bundle
from tests.test_bundle import LABELS, about, files
if sys.argv[2] == "renames":
    folders.exchange = lambda first, second: False
for number in itertools.count(int(sys.argv[3])):
    weights = number.to_bytes(4, "little") * 50_000
    write_bundle(Path(sys.argv[1]), about(), files(weights=weights), LABELS)
    update_bundle(Path(sys.argv[1]), sections={"n": number}, reports={"bench.json": b"x" * 1000})
    print(number, flush=True)
"""


@pytest.mark.parametrize(("how", "kills"), [("exchange", 6), ("renames", 6)])
def test_a_kill_at_any_moment_leaves_a_whole_bundle(how: str, kills: int, tmp_path: Path) -> None:
    path, generator = tmp_path / "b", random.Random(11)
    write(path, weights=bytes(200_000))
    last = 0
    for _ in range(kills):
        command = [sys.executable, "-c", WRITER, str(path), how, str(last + 1)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        done = int(process.stdout.readline())  # it writes, over and over
        time.sleep(generator.uniform(0, 0.06))
        process.send_signal(signal.SIGKILL)
        done = int((process.stdout.read().split() or [done])[-1])
        process.wait()
        opened = open_bundle(path)
        weights = (opened.folder / "model.bin").read_bytes()
        number = int.from_bytes(weights[:4], "little")
        assert weights == weights[:4] * 50_000
        assert number in (done, done + 1)  # the last one finished, or the one at work
        last = number + 1
    write(path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["b"]


def test_a_reader_never_sees_half_of_each(tmp_path: Path) -> None:
    path = tmp_path / "b"
    write(path, weights=bytes(200_000))
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), "exchange", "1"], stdout=subprocess.DEVNULL
    )
    try:
        seen = set()
        end = time.monotonic() + 10
        while len(seen) < 20 and time.monotonic() < end:
            with folders.locked(path, shared=True):
                opened = open_bundle(path)
                weights = (opened.folder / "model.bin").read_bytes()
                assert len(weights) == opened.manifest.files["model.bin"].size
                seen.add(weights[:4])
        assert len(seen) > 3
    finally:
        process.kill()
        process.wait()


def test_running_out_of_space_is_said_and_leaves_the_old_bundle(tmp_path: Path) -> None:
    path = write(tmp_path / "b")
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "from tests.test_bundle import write\n"
        "try:\n    write(Path(sys.argv[1]), weights=bytes(1_000_000))\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("EdgekitError cannot write")
    assert open_bundle(path).manifest.files["model.bin"].size == 7
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["b"]


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, edgekit.bundle\n"
        "heavy = {'torch', 'openvino', 'onnx', 'onnxruntime', 'scipy', 'cv2', 'nncf'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
