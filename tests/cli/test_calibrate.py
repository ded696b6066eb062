"""`edgekit calibrate`: stored lists, a damaged cache, few images, other dialects' recipes."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.cli.main import main
from tests.e2e import trained


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = trained.cache_of_floats(tmp_path_factory.mktemp("cache"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEKIT_CACHE", str(folder))
        yield folder


def calibrate(*words: str | Path) -> int:
    model = ("calibrate", str(trained.checkpoint()), "--data", trained.DATA)
    with pytest.raises(SystemExit) as stop:
        main([*model, *(str(word) for word in words)])
    return int(stop.value.code or 0)


def recipe(folder: Path, *lines: str) -> Path:
    path = folder / "mine.toml"
    path.write_text("\n".join(["images = 12", *lines]))
    return path


def test_a_stored_list_repeats_a_calibration_bit_by_bit(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = recipe(
        tmp_path, "selection = 'stratified'", "corrupted_share = 0.5", "corruptions='fog'"
    )
    first, second = tmp_path / "a.onnx", tmp_path / "b.onnx"
    assert calibrate("--recipe", mine, "-o", first) == 0
    listing = json.loads(Path(f"{first}.images.json").read_text())
    assert len(listing["images"]) == 12
    assert sum(image["corruption"] == "fog" for image in listing["images"]) == 6
    assert calibrate("--recipe", mine, "--images", f"{first}.images.json", "-o", second) == 0
    assert second.read_bytes() == first.read_bytes()
    assert Path(f"{second}.images.json").read_text() == Path(f"{first}.images.json").read_text()
    # A damaged cache entry is found, said, and made again, to the same bytes.
    for entry in (cache / "calibrate").iterdir():
        (entry / "model.onnx").write_bytes(b"damaged")
    capsys.readouterr()
    third = tmp_path / "c.onnx"
    assert calibrate("--recipe", mine, "-o", third) == 0
    assert "damaged and will be computed again" in capsys.readouterr().err
    assert third.read_bytes() == first.read_bytes()


def test_a_selection_by_quality_keeps_the_shares(cache: Path, tmp_path: Path) -> None:
    lines = ("corrupted_share = 0.5", "corruptions='fog'", "bias_correction = 'none'")
    mine = recipe(tmp_path, "selection = 'quality'", "rounding = 'nearest'", *lines)
    assert calibrate("--recipe", mine, "-o", tmp_path / "a.onnx") == 0
    images = json.loads((tmp_path / "a.onnx.images.json").read_text())["images"]
    assert len({image["sha256"] for image in images}) == 12
    assert sum(image["corruption"] == "fog" for image in images) == 6


def test_too_few_images_are_said(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = recipe(tmp_path, "bias_correction = 'none'")
    listing = tmp_path / "a.onnx"
    assert calibrate("--recipe", mine, "-o", listing) == 0
    more = tmp_path / "more.toml"
    more.write_text("images = 40\nbias_correction = 'none'")
    images = Path(f"{listing}.images.json")
    capsys.readouterr()
    assert calibrate("--recipe", more, "--images", images, "-o", tmp_path / "b.onnx") == 0
    assert "calibrating on 12 images, the recipe asks for 40" in capsys.readouterr().err


def test_control_is_reported(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = recipe(tmp_path, "bias_correction = 'none'", "control_images = 16")
    words = ("--max-drop", "100", "--metric", "code-agreement", "--json")
    assert calibrate("--recipe", mine, *words, "-o", tmp_path / "controlled.onnx") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["control"]["before"]["estimate"] > 0
    assert document["control"]["nodes"] == []
    # What the recipe leaves in float is no layer that accuracy control has put back.
    assert document["not_quantized"] == ["backbone.blocks.0.depthwise.weight"]
    assert "accuracy control: code-agreement lost" in document["message"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "-o is missing"),
        (("--max-drop", "-1", "-o", "x.onnx"), "max_drop must not be negative"),
        (("--images", "nowhere.json", "-o", "x.onnx"), "cannot read the image list nowhere.json"),
        (("--recipe", "stratifed", "-o", "x.onnx"), "did you mean 'stratified'"),
    ],
)
def test_mistakes(
    cache: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    assert calibrate(*words) == 2
    assert message in capsys.readouterr().err


def test_a_recipe_for_another_dialect_stops_before_the_work(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = recipe(tmp_path, "preset = 'mixed'")
    words = ("--recipe", mine, "--dialect", "tensorrt", "-o", tmp_path / "x.onnx")
    assert calibrate(*words) == 2
    assert "dialect 'tensorrt' takes zero-point 0 only" in capsys.readouterr().err
