"""Images, lists and arrays that ask for gigabytes, never end, or are not what they say."""

import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekit.core.errors import UsageError
from edgekit.core.npz import NpzError, read_arrays
from edgekit.data import decode
from edgekit.data.datasets import open_dataset
from edgekit.data.decode import BadImage, decode_bytes, decode_file
from edgekit.data.transforms import Preprocessing
from tests.data.images import png, write
from tests.hostile.limited import MIB, run_with


def empty_png(width: int, height: int, *, kind: int = 0, bits: int = 8) -> bytes:
    """A PNG of zeros; ``kind`` is 0 for gray, 6 for RGBA."""
    row = bytes(1 + width * bits // 8 * {0: 1, 6: 4}[kind])
    at_once = max(1, MIB // len(row))
    packer = zlib.compressobj(9)
    blocks = [packer.compress(row * min(at_once, height - y)) for y in range(0, height, at_once)]
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", b"".join([*blocks, packer.flush()])), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


DECODE = """
import sys
from pathlib import Path
decode_file(Path(sys.argv[1]))
(peak,) = [line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line]
print(int(peak.split()[1]) // 1024)
"""
IMPORTS = "from edgekit.data.decode import decode_file\n"


def test_a_small_file_of_many_pixels_is_refused_by_its_header(tmp_path: Path) -> None:
    path = tmp_path / "line.png"
    path.write_bytes(empty_png(1, 178_000_000))
    assert path.stat().st_size < MIB
    said = run_with(1500 * MIB, DECODE, str(path), imports=IMPORTS)
    assert f"{path}, 1 x 178000000 pixels, would take 1189 MiB of memory, more than 1024" in said
    assert "EDGEKIT_MAX_FILE_MB" in said


def test_what_is_decoded_takes_what_was_counted(tmp_path: Path) -> None:
    """Alpha was composited with three copies of the image, 16 bits went through 64."""
    for kind, bits in ((6, 8), (0, 16)):
        path = tmp_path / f"{kind}.png"
        path.write_bytes(empty_png(8000, 5000, kind=kind, bits=bits))
        megabytes = int(run_with(2000 * MIB, DECODE, str(path), imports=IMPORTS))
        counted = 8000 * 5000 * decode._BYTES_PER_PIXEL / MIB
        assert megabytes < counted + 150  # Python, NumPy and Pillow


def kinds() -> dict[str, Image.Image]:
    random = np.random.default_rng(0)
    rgba = Image.fromarray(random.integers(0, 256, (37, 23, 4), np.uint8))
    deep = random.integers(0, 65536, (37, 23), np.uint16)
    palette = rgba.convert("RGB").quantize(40)
    clear = palette.copy()
    clear.info["transparency"] = 3
    return {
        "1": rgba.convert("1"), "L": rgba.convert("L"), "LA": rgba.convert("LA"), "P": palette,
        "transparent": clear, "RGB": rgba.convert("RGB"), "RGBA": rgba,
        "CMYK": rgba.convert("CMYK"), "I;16": Image.fromarray(deep),
    }  # fmt: skip


@pytest.mark.parametrize("kind", kinds())
def test_strips_give_the_pixels_of_the_whole(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = kinds()[kind]
    whole = decode.pixels_of(image, kind)
    assert np.array_equal(whole, np.asarray(decode._rgb(image, kind)))
    monkeypatch.setattr(decode, "_STRIP_PIXELS", 23 * 5)
    assert np.array_equal(decode.pixels_of(image, kind), whole)


def test_pipes_and_devices_are_no_images(tmp_path: Path) -> None:
    """Opening a pipe waits for its writer, reading /dev/zero never ends."""
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", Path("/dev/zero")):
        with pytest.raises(BadImage, match="Not a regular file"):
            decode_file(path)
    folder = tmp_path / "photos"
    write(folder / "cat" / "1.png")
    write(folder / "dog" / "2.png")
    os.mkfifo(folder / "cat" / "2.png")
    assert len(open_dataset(str(folder), skip_bad=True)) == 2
    (tmp_path / "list.csv").write_text("path,label\n/dev/zero,cat\nphotos/dog/2.png,dog\n")
    dataset = open_dataset(str(tmp_path / "list.csv"))
    with pytest.raises(BadImage, match="Not a regular file"):
        dataset.digest(0)
    os.mkfifo(tmp_path / "list.jsonl")
    with pytest.raises(UsageError, match="Not a regular file"):
        open_dataset(str(tmp_path / "list.jsonl"))


NINES = "9" * 5000


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jsonl", '{"path": "x", "label": ' + NINES + "}"),
        ("b.jsonl", "[" * 100_000),
        ("c.jsonl", '{"path": 1, "label": {}}'),
        ("d.csv", f"path,label\nx.png,{NINES}\n"),
        ("e.csv", "path,label\nx.png,2000000\n"),
        ("f.csv", "path,label\n" + "x" * 200_000 + ",1\n"),
        ("g.csv", "path,label\n\0,1\n"),
    ],
)
def test_lists_that_are_none_are_one_line(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError) as caught:
        open_dataset(str(tmp_path / name))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode() + b" " * (118 - len(header) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def npz(path: Path, members: dict[str, bytes], method: int) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return path


def labels(count: int) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros(count, np.int64))
    return stream.getvalue()


HEADERS: dict[str, Callable[[], str]] = {
    "huge": lambda: "{'descr': '|u1', 'fortran_order': False, 'shape': (4294967296, 1, 1), }",
    "beyond": lambda: f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({10**30}, 1, 1), }}",
    "negative": lambda: "{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 8, 8), }",
    "nested": lambda: "(" * 300,
    "text": lambda: "{'descr': 'x', 'fortran_order': 3, 'shape': 'a'}",
    "objects": lambda: "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("kind", HEADERS)
def test_arrays_that_are_none_are_one_line(tmp_path: Path, kind: str, method: int) -> None:
    members = {"images": npy(HEADERS[kind](), bytes(64)), "labels": labels(1)}
    with pytest.raises(UsageError) as caught:
        open_dataset(str(npz(tmp_path / "d.npz", members, method)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damaged_archives_are_one_line(tmp_path: Path, method: int) -> None:
    path = npz(tmp_path / "d.npz", {"images": npy("{}", bytes(9000)), "labels": labels(9)}, method)
    good = bytearray(path.read_bytes())
    for place in range(30, len(good), max(1, len(good) // 60)):
        bad = bytearray(good)
        bad[place] ^= 0xFF
        path.write_bytes(bad)
        with pytest.raises(UsageError) as caught:
            open_dataset(str(path))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_self_test_packed_in_another_way_is_not_unpacked(tmp_path: Path, method: int) -> None:
    """Damaged, it ended in a traceback; as it is, it takes what memory its header says."""
    path = npz(tmp_path / "selftest.npz", {"schema": labels(1)}, method)
    with pytest.raises(NpzError, match="packed in a way that is not read here"):
        read_arrays(path, most_bytes=MIB)
    with pytest.raises(UsageError, match="packed in a way that is not read here"):
        open_dataset(str(npz(tmp_path / "d.npz", {"labels": labels(9)}, method)))


@pytest.mark.filterwarnings("error")
def test_a_self_test_with_any_header_is_one_line(tmp_path: Path) -> None:
    for header in ("[" * 500, "{'descr': ", "9" * 9000, "(", "{1: 2}", "'\\x", "{'shape': 9L}"):
        path = npz(tmp_path / "selftest.npz", {"schema": npy(header)}, zipfile.ZIP_STORED)
        with pytest.raises(NpzError, match="cannot be read"):
            read_arrays(path, most_bytes=MIB)


OPEN = "import sys\nprint(len(open_dataset(sys.argv[1])))"


def test_an_archive_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("labels.npy", labels(1100))
        header = "{'descr': '|u1', 'fortran_order': False, 'shape': (1100, 1024, 1024), }"
        with archive.open("images.npy", "w", force_zip64=True) as stream:
            stream.write(npy(header))
            for _ in range(1100):
                stream.write(bytes(MIB))
    assert path.stat().st_size < 6 * MIB
    said = run_with(
        1000 * MIB, OPEN, str(path), imports="from edgekit.data.datasets import open_dataset\n"
    )
    assert "is compressed and would take 1101 MiB of memory, more than 1024 MiB" in said
    assert "save the file with numpy.savez" in said


@pytest.mark.parametrize("value", [10**19, 10**400, True, None, "x", float("nan")])
def test_preprocessing_of_odd_numbers_is_one_line(value: object) -> None:
    for key, odd in (("mean", [value, 1.0, 1.0]), ("crop_ratio", value), ("size", [value, 8])):
        values = {**Preprocessing().to_dict(), key: odd}
        if key == "mean" and value == 10**19:
            continue  # odd, but a number
        with pytest.raises(UsageError) as caught:
            Preprocessing.from_dict(json.loads(json.dumps(values)))
        assert "\n" not in str(caught.value)


def test_the_limit_must_be_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("-1", "0", "many", "9" * 40):
        monkeypatch.setenv("EDGEKIT_MAX_FILE_MB", text)
        with pytest.raises(UsageError, match="EDGEKIT_MAX_FILE_MB must be a whole number of MiB"):
            decode_bytes(png(1), "x")
