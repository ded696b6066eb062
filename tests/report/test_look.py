"""Images on the page and in a folder of their own: which, whose, and how to be rid of them."""

import base64
import dataclasses
import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from edgekit.bundle.store import open_bundle, update_bundle, write_bundle
from edgekit.cli.main import main
from edgekit.core.console import Console
from edgekit.core.documents import DocumentError
from edgekit.core.errors import UsageError
from edgekit.core.step_cache import cache_root
from edgekit.devices.deployed import deployment_key
from edgekit.parity.examples import EXAMPLES, Answered, Codes, Examples, read_examples
from edgekit.report.page import report_page
from edgekit.report.pair_page import pair_page
from edgekit.report.sections.look import look
from edgekit.report.worst_folder import check_place
from edgekit.workflows.parity import save_report
from tests import bundles, commands, documents
from tests.foreign import classifiers
from tests.foreign.lies import CELLS, quantized
from tests.parity.example import document
from tests.report.pictures import MEASURED, examples
from tests.report.test_hostile import mutants, one_line

QUIET = Console(verbosity=-1)
PARITY = document(measured=MEASURED)
HOSTILE = '"><script>alert(1)</script>'


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundles.bundle("cpu", "inline"), tmp_path / "cpu"))


def test_the_page_shows_both_cells_and_both_answers() -> None:
    page = look(examples(), PARITY)
    for text in (
        "<h3>The worst cell: fog, severity 3</h3>",
        "<h3>A random cell: gaussian noise, severity 1</h3>",
        "Error 30.0% → 32.0%; 25.0% of the answers changed. Shown: the most confident losses.",
        "0.0% of the answers changed. Shown: the first images",
        "<dt>reference</dt><dd>\N{CHECK MARK} coat 97%</dd>",
        '<dt>candidate</dt><dd class="wrong">\N{BALLOT X} bag 61%</dd>',
        "<dt>code</dt><dd>12 → 7</dd>",
        'alt="fog, severity 3: photos/1.png"',
        'alt="clean: photos/1.png"',
        "<strong>coat</strong> fog, severity 3 <small>photos/1.png</small>",
    ):
        assert text in page, text
    assert page.count("<img") == 4
    assert page.count('class="tiny"') == 4
    assert 'class="tiny"' not in look(examples(128), PARITY)
    assert look(None, PARITY) == look(examples(), None) == ""
    positions = look(examples(codes=Codes(47, 49)), PARITY)
    assert "<dd>47 of 49 equal</dd>" in positions
    unlabeled = Answered("coat", 0.5, right=None)
    assert "<dd>coat 50%</dd>" in look(examples(reference=unlabeled), PARITY)


def test_nothing_in_them_becomes_html() -> None:
    hostile = examples(image=HOSTILE, candidate=Answered(HOSTILE, 0.5, right=False))
    page = pair_page(document(data=HOSTILE), hostile)
    assert "<script" not in page
    assert page.count("<img") == 4
    sources = re.findall(r'src="([^"]*)"', page)
    assert all(source.startswith("data:image/jpeg;base64,/9j/") for source in sources)


def test_a_bundle_keeps_the_images_of_its_evidence_alone(bundle: Path) -> None:
    before = open_bundle(bundle).manifest
    save_report(bundle, PARITY, QUIET, examples=examples())
    opened = open_bundle(bundle)
    assert read_examples(opened, PARITY) == examples()
    assert opened.manifest.identity() == before.identity()
    assert deployment_key(opened.manifest) == deployment_key(before)
    documents.check(examples())
    page = report_page(opened)
    assert page.count("<img") == 4
    assert f'href="{EXAMPLES}"' in report_page(opened, inside=True)
    assert "<img" not in report_page(opened, pictures=False)
    # A weaker run is kept beside the evidence, and its images are not kept at all.
    glance = document(images=20, available=20, measured="2026-02-02T00:00:00Z")
    other = dataclasses.replace(examples(64), measured=glance.measured)
    save_report(bundle, glance, QUIET, examples=other)
    assert report_page(open_bundle(bundle)).count('class="tiny"') == 4
    # One that replaces it brings its own, or none.
    save_report(bundle, glance, QUIET, examples=other, replace=True)
    assert read_examples(open_bundle(bundle), glance) == other
    save_report(bundle, glance, QUIET)
    opened = open_bundle(bundle)
    assert EXAMPLES not in opened.manifest.files
    assert not (bundle / EXAMPLES).exists()
    assert "<img" not in report_page(opened)


def test_images_of_another_comparison_are_not_shown(bundle: Path) -> None:
    save_report(bundle, PARITY, QUIET, examples=examples())
    later = document(measured="2026-03-03T00:00:00Z")
    update_bundle(bundle, reports={"parity.json": json.dumps(later.to_dict()).encode()})
    assert "<img" not in report_page(open_bundle(bundle))


def test_damaged_images_are_one_line(bundle: Path) -> None:
    save_report(bundle, PARITY, QUIET, examples=examples())
    whole = examples().to_dict()
    whole["cells"][0]["examples"][0]["clean"]["jpeg"] = "no picture"
    for damaged in (b"{", b"[]", b'{"schema": 9}', json.dumps(whole).encode()):
        update_bundle(bundle, reports={EXAMPLES: damaged})
        with pytest.raises(UsageError, match=r"examples\.json") as error:
            report_page(open_bundle(bundle))
        assert "\n" not in str(error.value)
    with (bundle / EXAMPLES).open("ab") as stream:
        stream.write(b" ")
    with pytest.raises(UsageError, match=r"examples\.json does not match its manifest"):
        open_bundle(bundle)


def test_every_change_of_them_is_a_page_or_one_line() -> None:
    pages, refused = [], []
    for mutant in mutants(examples(8).to_dict()):
        try:
            pages.append(look(Examples.from_dict(mutant, "here"), PARITY))
        except DocumentError as error:
            refused.append(one_line(error))
    assert all("run 'edgekit parity' on the bundle again" in line for line in refused)
    assert min(len(pages), len(refused)) > 30


def test_equal_bundles_have_equal_pages(bundle: Path, tmp_path: Path) -> None:
    save_report(bundle, PARITY, QUIET, examples=examples())
    opened = open_bundle(bundle)
    files = {n: opened.folder / n for n in opened.manifest.files if n != "labels.txt"}
    again = dataclasses.replace(opened.manifest, created="2001-01-01T00:00:00Z")
    write_bundle(tmp_path / "again", again, files, opened.labels)
    assert report_page(opened) == report_page(open_bundle(tmp_path / "again"))


def test_report_without_images_removes_those_of_the_bundle(bundle: Path, tmp_path: Path) -> None:
    save_report(bundle, PARITY, QUIET, examples=examples())

    def report(*words: object) -> None:
        with pytest.raises(SystemExit) as stop:
            main(["report", str(bundle), "-q", *map(str, words)])
        assert stop.value.code == 0

    report("--no-images", "-o", tmp_path / "public.html")
    assert "<img" not in (tmp_path / "public.html").read_text()
    report()
    assert (bundle / "report.html").read_text().count("<img") == 4
    report("--no-images")
    assert "<img" not in (bundle / "report.html").read_text()
    assert EXAMPLES not in open_bundle(bundle).manifest.files


# The command, on a network that INT8 changes, and images that both have never seen.


@pytest.fixture(scope="module")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One cache: every model answers once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def parity(capsys: pytest.CaptureFixture[str], candidate: Path, *words: object) -> tuple[int, str]:
    """Exit code and standard error of a comparison with the float network."""
    arguments = ["parity", candidate, "--reference", classifiers.float_onnx(), *CELLS]
    arguments += ["--data", classifiers.data(), "--preprocessing", classifiers.preprocessing()]
    settings = ("--tolerance", "3", "--full", "--images", 150)
    done = commands.run(capsys, *arguments, *settings, *words)
    return done.code, done.err


@pytest.mark.usefixtures("_cache")
def test_worst_writes_what_changed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder, out = tmp_path / "made" / "worst", tmp_path / "out"
    code, said = parity(capsys, quantized(), "--worst", folder, "--worst-images", 5, "--out", out)
    assert code == 0, said
    listing = json.loads((folder / "worst.json").read_text())
    documents.validator("worst-file").validate(listing)
    changed = listing["lost"] + listing["gained"] + listing["moved"]
    assert changed > 5
    assert f"wrote 5 of {changed:,} changed answers" in " ".join(said.split())
    files = [image["file"] for image in listing["images"]]
    assert len(set(files)) == 5
    assert {path.name for path in folder.iterdir()} == {"worst.json", "index.html", *files}
    for image in listing["images"]:
        assert image["reference"]["name"] != image["candidate"]["name"]
        assert image["corruption"] in image["file"]
        with Image.open(folder / image["file"]) as opened:
            assert (opened.format, opened.size) == ("JPEG", (28, 28))
    page = (folder / "index.html").read_text()
    shown = re.findall(r'base64,([^"]*)"', page)
    stored = [io.BytesIO((folder / name).read_bytes()).getvalue() for name in files]
    assert all(base64.b64encode(data).decode() in shown for data in stored)
    assert f"{changed:,} of {listing['answers']:,} answers changed" in page
    assert "<script" not in page
    assert "http" not in page
    assert "<h2>Look</h2>" in (out / "report.html").read_text()
    # Again, with fewer: the folder is edgekit's own. Without images the page has none.
    code, _ = parity(
        capsys, quantized(), "--worst", folder, "--worst-images", 2, "--out", out, "--no-images"
    )
    assert code == 0
    assert len(list(folder.glob("*.jpg"))) == 2
    assert {path.name for path in folder.glob("*.jpg")} == set(files[:2])
    assert "<img" not in (out / "report.html").read_text()
    # Nothing changed: said in a line, and the images of before are gone.
    code, said = parity(capsys, classifiers.float_onnx(), "--worst", folder)
    assert code == 0
    assert "worst: no answer changed" in said
    assert sorted(path.name for path in folder.iterdir()) == ["index.html", "worst.json"]
    assert "answers changed." in (folder / "index.html").read_text()


@pytest.mark.usefixtures("_cache")
def test_a_folder_of_anybody_else_is_left_alone(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    cache = cache_root()
    mine = tmp_path / "mine"
    mine.mkdir()
    check_place(tmp_path / "new", cache)
    check_place(mine, cache)
    (mine / "thesis.tex").write_text("all of it")
    code, said = parity(capsys, quantized(), "--worst", mine)
    assert code == 2
    assert "holds more than what" in said
    for listing in ("{", '{"schema": 1}', '{"schema": 7}'):
        (mine / "worst.json").write_text(listing)
        with pytest.raises(UsageError, match="name a folder of its own"):
            check_place(mine, cache)
    assert (mine / "thesis.tex").read_text() == "all of it"
    with pytest.raises(UsageError, match="is a file"):
        check_place(mine / "thesis.tex", cache)
    code, said = parity(capsys, bundles.bundle(), "--worst", bundles.bundle() / "new")
    assert code == 2
    assert "is the bundle or inside it" in said
    code, said = parity(capsys, quantized(), "--worst", tmp_path / "new", "--across")
    assert code == 2
    assert "--worst is for a comparison of two" in said
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("_cache")
def test_what_a_folder_holds_does_not_make_it_ours(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A list of its files in it is no proof; nor is one file of ours among them."""
    written, cache = tmp_path / "written", cache_root()
    code, said = parity(capsys, quantized(), "--worst", written, "--worst-images", 2)
    assert code == 0, said
    check_place(written, cache)
    forged = Path(shutil.copytree(written, tmp_path / "forged"))
    photo = next(forged.glob("*.jpg"))
    listing = json.loads((forged / "worst.json").read_text())
    listing["data"] = "somebody else's"
    (forged / "worst.json").write_text(json.dumps(listing))
    edited = Path(shutil.copytree(written, tmp_path / "edited"))
    (edited / photo.name).write_bytes(b"my only photo of her")
    more = Path(shutil.copytree(written, tmp_path / "more"))
    (more / "mine.jpg").write_bytes(b"mine")
    odd = Path(shutil.copytree(written, tmp_path / "odd"))
    (odd / photo.name).unlink()
    os.mkfifo(odd / photo.name)
    for folder in (forged, edited, more, odd):
        with pytest.raises(UsageError, match="name a folder of its own"):
            check_place(folder, cache)
    with pytest.raises(UsageError, match="name a folder of its own"):
        check_place(written, tmp_path / "another cache")


@pytest.mark.parametrize("place", ["/proc/worst", "file/worst", "a" * 300, "loop/worst"])
def test_a_folder_that_cannot_be_made_is_refused_at_once(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("loop").symlink_to("loop")
    with pytest.raises(UsageError, match=r"cannot write .*: name another folder") as error:
        check_place(Path(place), tmp_path / "cache")
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "loop"]
