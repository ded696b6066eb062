"""`edgekit build` on a small trained model: the bundle and the caching."""

import contextlib
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

import edgekit
from edgekit.bundle.store import open_bundle
from edgekit.cli.main import main
from edgekit.core.files import file_sha256
from edgekit.data.datasets import open_dataset
from edgekit.data.splits import split_dataset
from edgekit.model.checkpoint import load_checkpoint
from edgekit.targets.descriptor import host_saturates
from tests.e2e import trained

# A build of everything in it takes a few seconds; bench and parity have tests of their own.
QUICK = (
    "--data",
    trained.DATA,
    "--recipe",
    "fast",
    "--no-parity",
    "--no-watch",
    "--bench-seconds",
    "0.3",
)


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One cache for these tests, so that each step is computed once."""
    with pytest.MonkeyPatch.context() as patch:
        folder = trained.cache_of_floats(tmp_path_factory.mktemp("cache"))
        patch.setenv("EDGEKIT_CACHE", str(folder))
        yield


class Done(NamedTuple):
    """What a command printed, and how it ended."""

    returncode: int
    stdout: str
    stderr: str


def edgekit_build(out: Path, *words: str) -> Done:
    checkpoint = ("--checkpoint", str(trained.checkpoint()))
    return run("build", *checkpoint, "--out", str(out), *QUICK, *words)


def run(*words: str) -> Done:
    """The command in this process: starting one with torch takes longer than most builds here."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as stop,
    ):
        main(list(words))
    assert isinstance(stop.value.code, int)
    return Done(stop.value.code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two bundles to look at; a test that changes them takes `copied`."""
    out = tmp_path_factory.mktemp("build")
    done = edgekit_build(out, "--target", "cpu", "--target", "onnxruntime-cpu")
    assert done.returncode == 0, done.stderr
    table = done.stdout.splitlines()
    assert table[0].split()[:2] == ["target", "size"]
    assert [line.split()[0] for line in table[1:3]] == ["cpu", "onnxruntime-cpu"]
    before = contents(out)
    yield out
    assert contents(out) == before, "a test has changed the others' bundles"


@pytest.fixture
def copied(built: Path, tmp_path: Path) -> Path:
    """The bundles, for one test alone."""
    return shutil.copytree(built, tmp_path / "copied")


def contents(folder: Path) -> dict[str, tuple[int, str]]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, file_sha256(path))
        for path in files
    }


def fitted(count: int) -> np.ndarray:
    random_ = np.random.default_rng(0)
    return random_.integers(0, 256, (count, *trained.SIZE, 3), np.uint8)


def test_bundles_load_and_agree(built: Path) -> None:
    dataset = open_dataset(trained.DATA)
    test = split_dataset(dataset).part("test", dataset)
    images = [test.image(index) for index in range(200)]
    labels = [test.classes[test.label(index)] for index in range(200)]
    found = {}
    for name in ("cpu", "onnxruntime-cpu"):
        predictions = edgekit.load(built / name).predict(images)
        found[name] = predictions
        right = np.mean([a == b for a, b in zip(predictions.labels, labels, strict=True)])
        assert right > 0.6, name  # ten classes, a head trained for seconds
    same = [a == b for a, b in zip(found["cpu"].codes, found["onnxruntime-cpu"].codes, strict=True)]
    if not host_saturates():  # there each target has a calibration of its own
        assert np.mean(same) > 0.9
    original = load_checkpoint(trained.checkpoint())
    fitted_images = np.stack([original.card.preprocessing.fit(image) for image in images])
    with torch.no_grad():
        pixels = torch.from_numpy(original.card.preprocessing.normalize(fitted_images))
        expected = original.model(pixels).code.tolist()
    for name, predictions in found.items():
        kept = [a == b for a, b in zip(predictions.codes, expected, strict=True)]
        assert np.mean(kept) > 0.85, name


def test_the_manifest_tells_where_the_bundle_comes_from(built: Path) -> None:
    manifest = open_bundle(built / "cpu").manifest
    assert manifest.source.checkpoint == file_sha256(trained.checkpoint())
    assert len(manifest.source.recipe) == len(manifest.source.calibration_images) == 64
    assert "--target cpu" in manifest.rebuild
    listing = json.loads((built / "cpu" / "calibration.json").read_text(encoding="utf-8"))
    images = listing["images"]
    assert len({image["sha256"] for image in images}) == 64
    assert {"torch", "nncf", "openvino"} <= set(manifest.versions)
    bench = manifest.sections["bench"]
    assert bench["latencies"]["bundle"]["median_ms"] > 0
    assert set(bench["ratios"]) == {"float, ONNX Runtime", "float, OpenVINO"}
    text = (built / "cpu" / "manifest.json").read_text(encoding="utf-8")
    assert str(trained.checkpoint().parent) not in text  # no paths of the machine that built it


def test_a_second_run_has_nothing_to_do(copied: Path) -> None:
    before = contents(copied)
    done = edgekit_build(copied, "--target", "cpu")
    assert done.returncode == 0
    assert "cpu: up to date" in done.stderr
    assert contents(copied) == before


def test_nothing_to_do_imports_nothing_heavy(built: Path) -> None:
    words = ["build", "--checkpoint", str(trained.checkpoint()), "--out", str(built), *QUICK]
    code = (
        "import sys\nfrom edgekit.cli.main import main\n"
        f"try:\n    main({words!r})\nexcept SystemExit as stop:\n    assert stop.code == 0\n"
        "heavy = {'torch', 'nncf', 'onnx', 'onnxruntime', 'openvino', 'cv2', 'scipy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "up to date" in done.stderr


@pytest.mark.parametrize("change", ["recipe", "damaged bundle", "seed"])
def test_what_changed_is_built_again(copied: Path, tmp_path: Path, change: str) -> None:
    words = []
    if change == "recipe":
        recipe = tmp_path / "other.toml"
        recipe.write_text("images = 16\nbias_correction = 'none'\n")
        words = ["--recipe", str(recipe)]
    elif change == "seed":
        words = ["--seed", "5"]
    else:
        (copied / "cpu" / "labels.txt").write_text("x\n")
    done = edgekit_build(copied, *words)
    assert done.returncode == 0, done.stderr
    assert "cpu: built" in done.stderr
    assert ("calibrate: cached" in done.stderr) == (change == "damaged bundle")
    open_bundle(copied / "cpu")


def test_dry_run_says_and_does_nothing(built: Path, tmp_path: Path) -> None:
    done = edgekit_build(tmp_path / "new", "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    states = {row["step"]: row["state"] for row in json.loads(done.stdout)["steps"]}
    assert states == {
        "load": "given",
        "export": "cached",
        "calibrate": "cached",
        "compile": "to do",
        "bench": "to do",
    }
    assert not (tmp_path / "new").exists()
    done = edgekit_build(built, "--dry-run", "--json")
    states = {row["step"]: row["state"] for row in json.loads(done.stdout)["steps"]}
    assert states["compile"] == "up to date"


def test_saved_settings_repeat_the_build(copied: Path, tmp_path: Path) -> None:
    saved = tmp_path / "build.toml"
    assert edgekit_build(copied, "--save-config", str(saved)).returncode == 0
    done = run("build", "--config", str(saved))
    assert done.returncode == 0, done.stderr
    assert "up to date" in done.stderr
    assert edgekit_build(copied, "--save-config", str(saved)).returncode == 0  # the same
    other = edgekit_build(copied, "--seed", "7", "--save-config", str(saved))
    assert other.returncode == 2
    assert "holds other settings: choose another name" in other.stderr


def test_only_and_force(copied: Path) -> None:
    only = edgekit_build(copied, "--only", "compile")
    assert "calibrate: cached" in only.stderr
    assert "cpu: built" in only.stderr
    bench = edgekit_build(copied, "--only", "bench")
    assert "compile (cpu)" not in bench.stderr
    assert "bench (cpu): about" in bench.stderr
    forced = edgekit_build(copied, "--force", "--no-bench")
    assert forced.returncode == 0
    assert "cached" not in forced.stderr


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    for name, words in (("one", ()), ("two", ("--zip",))):
        done = edgekit_build(tmp_path / name, "--no-bench", *words)  # times are never the same
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "two" / "cpu.zip").exists()
    one, two = (open_bundle(tmp_path / name / "cpu").manifest for name in ("one", "two"))
    assert one.files == two.files
    assert one.identity() == two.identity()


def test_float_precision_gives_the_codes_of_torch(tmp_path: Path) -> None:
    import torch

    from edgekit.model.checkpoint import load_checkpoint

    done = edgekit_build(tmp_path, "--precision", "fp32", "--no-bench")
    assert done.returncode == 0, done.stderr
    images = fitted(16)
    raw = edgekit.load(tmp_path / "cpu").run(images)
    model, card, _ = load_checkpoint(trained.checkpoint())
    with torch.no_grad():
        output = model(torch.from_numpy(card.preprocessing.normalize(images)))
    assert raw.code is not None
    assert output.code is not None
    assert np.array_equal(raw.code, output.code.numpy())
    expected = output.logits.numpy()
    assert np.abs(raw.logits - expected).max() / np.abs(expected).max() < 1e-3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--checkpoint", "absent.pth", "--data", trained.DATA],
            "cannot read checkpoint absent.pth",
        ),
        (["--target", "cpuu"], "unknown target 'cpuu' (did you mean 'cpu'?)"),
        (["--recipe", "robusst"], "did you mean 'robust'"),
        (["--data", "absent"], "no data at 'absent'"),
        (["--target", "cpu", "--target", "cpu"], "names a device twice"),
        (["--config", "absent.toml"], "cannot read absent.toml"),
        (["--tolerance", "-1"], "tolerance must not be negative"),
    ],
)
def test_mistakes(tmp_path: Path, words: list[str], message: str) -> None:
    done = edgekit_build(tmp_path / "out", *words)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_bundle_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "thesis.txt").write_text("years of work")
    done = edgekit_build(tmp_path)
    assert done.returncode == 2
    assert "exists and is not a bundle" in done.stderr
    assert (tmp_path / "cpu" / "thesis.txt").read_text() == "years of work"
