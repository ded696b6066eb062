import io
import random
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgekit.core.errors import UsageError
from edgekit.data import decode as decode_module
from edgekit.data.decode import BadImage, decode_bytes, decode_file

# Four flat quadrants survive JPEG within a few levels and tell every orientation apart.
QUADRANTS = np.zeros((32, 48, 3), np.uint8)
QUADRANTS[:16, :24] = (250, 20, 20)
QUADRANTS[:16, 24:] = (20, 250, 20)
QUADRANTS[16:, :24] = (20, 20, 250)
QUADRANTS[16:, 24:] = (240, 240, 40)


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def close(image: np.ndarray, expected: np.ndarray, levels: float) -> bool:
    return (
        image.shape == expected.shape
        and np.abs(image.astype(int) - expected.astype(int)).mean() <= levels
    )


@pytest.mark.parametrize("format", ["PNG", "BMP", "PPM", "TIFF", "JPEG", "WEBP"])
def test_every_format_gives_rgb(format: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(encoded(Image.fromarray(QUADRANTS), format))
    image = decode_file(path)
    assert image.dtype == np.uint8
    assert image.flags.writeable
    assert close(image, QUADRANTS, 6 if format in ("JPEG", "WEBP") else 0)


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, QUADRANTS),
        (2, QUADRANTS[:, ::-1]),
        (3, QUADRANTS[::-1, ::-1]),
        (4, QUADRANTS[::-1]),
        (5, QUADRANTS.transpose(1, 0, 2)),
        (6, np.rot90(QUADRANTS, -1)),
        (7, np.rot90(QUADRANTS, 2).transpose(1, 0, 2)),
        (8, np.rot90(QUADRANTS, 1)),
    ],
)
def test_exif_orientation_is_applied(orientation: int, upright: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(QUADRANTS), "JPEG", quality=95, exif=exif)
    assert close(decode_bytes(data, "photo"), upright, 6)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_unknown_orientation_turns_nothing(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(QUADRANTS), "PNG", exif=exif)
    assert np.array_equal(decode_bytes(data, "photo"), QUADRANTS)


def test_damaged_exif_beside_intact_pixels_is_no_error() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(QUADRANTS), "JPEG", quality=95, exif=exif)
    at = data.index(b"Exif\0\0") + 6
    broken = data[:at] + b"XX" + data[at + 2 :]
    assert close(decode_bytes(broken, "photo"), QUADRANTS, 6)


def test_cmyk_jpeg() -> None:
    data = encoded(Image.fromarray(QUADRANTS).convert("CMYK"), "JPEG", quality=95)
    assert Image.open(io.BytesIO(data)).mode == "CMYK"
    assert close(decode_bytes(data, "print"), QUADRANTS, 8)


def test_gray_becomes_three_equal_channels() -> None:
    gray = QUADRANTS[:, :, 0].copy()
    image = decode_bytes(encoded(Image.fromarray(gray), "PNG"), "gray")
    assert np.array_equal(image, np.repeat(gray[:, :, None], 3, axis=2))


def test_one_bit() -> None:
    bits = Image.fromarray(QUADRANTS[:, :, 0] > 128)
    assert set(np.unique(decode_bytes(encoded(bits, "PNG"), "fax"))) == {0, 255}


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_16_bit_gray_keeps_the_high_byte(format: str) -> None:
    deep = np.arange(32 * 64, dtype=np.uint16).reshape(32, 64) * 31
    if format == "PPM":
        data = b"P5 64 32 65535\n" + deep.astype(">u2").tobytes()
    else:
        data = encoded(Image.fromarray(deep), format)
    image = decode_bytes(data, "scan")
    assert np.array_equal(image[:, :, 1], (deep >> 8).astype(np.uint8))


def test_16_bit_color_is_treated_like_16_bit_gray() -> None:
    cv2 = pytest.importorskip("cv2")
    deep = np.random.default_rng(0).integers(0, 65536, (5, 7, 3), np.uint16)
    _, data = cv2.imencode(".png", deep[:, :, ::-1])
    assert np.array_equal(decode_bytes(data.tobytes(), "scan"), (deep >> 8).astype(np.uint8))


def test_32_bit_samples_are_refused() -> None:
    data = encoded(Image.fromarray(np.full((4, 4), 1e9, np.float32)), "TIFF")
    with pytest.raises(BadImage, match=r"scan\.tif has 32-bit samples"):
        decode_bytes(data, "scan.tif")


def test_palette() -> None:
    palette = Image.fromarray(QUADRANTS).convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    image = decode_bytes(encoded(palette, "PNG"), "icon")
    assert np.array_equal(image, np.asarray(palette.convert("RGB")))
    assert close(image, QUADRANTS, 8)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_composited_on_black(mode: str) -> None:
    image = Image.fromarray(QUADRANTS).convert(mode)
    alpha = np.full(QUADRANTS.shape[:2], 255, np.uint8)
    alpha[:, :10], alpha[:, 10:20] = 0, 128
    image.putalpha(Image.fromarray(alpha))
    expected = np.asarray(image.convert("RGB")) * (alpha[:, :, None] / 255)
    assert close(decode_bytes(encoded(image, "PNG"), "logo"), expected.round(), 0.5)
    assert not decode_bytes(encoded(image, "PNG"), "logo")[:, :10].any()


def test_transparent_palette_entry_is_black() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 210, 220])
    palette.putpixel((1, 0), 1)
    data = encoded(palette, "GIF", transparency=1)
    assert decode_bytes(data, "icon").tolist() == [[[10, 20, 30], [0, 0, 0]]]


def test_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue", "lime")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (decode_bytes(data, "clip") == (255, 0, 0)).all()


def test_truncated_file_is_named(tmp_path: Path) -> None:
    for format in ("JPEG", "PNG", "TIFF", "BMP", "WEBP"):
        path = tmp_path / f"half.{format.lower()}"
        data = encoded(Image.fromarray(QUADRANTS), format)
        path.write_bytes(data[: len(data) * 2 // 3])
        with pytest.raises(BadImage) as caught:
            decode_file(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert isinstance(caught.value, UsageError)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM"])
def test_no_truncation_loses_pixels_in_silence(format: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    data = encoded(Image.fromarray(noise), format)
    whole = decode_bytes(data, "whole")
    refused = 0
    lengths = [*range(0, len(data) - 40, 23), *range(len(data) - 40, len(data))]
    for length in lengths:
        try:
            assert np.array_equal(decode_bytes(data[:length], "part"), whole)
        except BadImage:
            refused += 1
    assert refused >= len(lengths) - 30  # the last bytes of some formats hold no pixels


@pytest.mark.parametrize("content", [b"", b"these are my holiday notes\n", b"\xff\xd8\xff"])
def test_what_is_no_image_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "notes.jpg"
    path.write_bytes(content)
    with pytest.raises(BadImage, match=r"notes\.jpg is"):
        decode_file(path)


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadImage, match=r"cannot read image .*nothing\.png: No such file"):
        decode_file(tmp_path / "nothing.png")
    with pytest.raises(BadImage, match="Is a directory"):
        decode_file(tmp_path)


def test_postscript_never_reaches_its_interpreter() -> None:
    with pytest.raises(BadImage, match="not an image that edgekit reads"):
        decode_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "x.jpg")


@pytest.mark.parametrize("side", [15_000, 50_000])
def test_decompression_bomb_is_refused_before_it_is_decoded(side: int) -> None:
    header = struct.pack("<2sIHHI", b"BM", 54, 0, 0, 54)
    info = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
    with pytest.raises(BadImage, match=r"bomb\.bmp(, .*| has more) pixels.*make it smaller"):
        decode_bytes(header + info, "bomb.bmp")


def test_the_limit_on_pixels_is_inclusive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_module, "_BYTES_PER_PIXEL", (1 << 20) // (32 * 48))
    data = encoded(Image.fromarray(QUADRANTS), "PNG")
    monkeypatch.setenv("EDGEKIT_MAX_FILE_MB", "1")
    decode_bytes(data, "exact")
    monkeypatch.setattr(decode_module, "_BYTES_PER_PIXEL", (1 << 20) // (32 * 48) + 1)
    with pytest.raises(BadImage, match="over, 48 x 32 pixels, would take 2 MiB"):
        decode_bytes(data, "over")


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP"]))
def test_damage_gives_an_image_or_one_clear_error(seed: int, format: str) -> None:
    generator = random.Random(seed)
    data = bytearray(encoded(Image.fromarray(QUADRANTS), format))
    for _ in range(generator.choice([1, 3, 20])):
        data[generator.randrange(len(data))] = generator.randrange(256)
    if generator.random() < 0.3:
        del data[generator.randrange(len(data)) :]
    try:
        image = decode_bytes(bytes(data), "damaged")
    except BadImage as error:
        message = str(error)
    else:
        message = "damaged "
        assert image.dtype == np.uint8
        assert image.ndim == 3
        assert image.shape[2] == 3
    assert message.startswith("damaged ")
    assert "\n" not in message
