"""Data by URL: the same as a folder here, whoever fills the bucket; nothing is fetched twice."""

import importlib.util
import pickle
import socketserver
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.bundle.build_record import BuildRecord
from edgekit.core.errors import EdgekitError, ToolchainMissing, UsageError
from edgekit.data import remote_folder
from edgekit.data.base import Dataset, content_hash, labels
from edgekit.data.datasets import ImageNetC, open_dataset
from edgekit.data.decode import BadImage
from edgekit.data.remote_cache import DIGEST_BYTES, LIMIT, RemoteCache
from edgekit.data.remote_folder import RemoteFolder
from edgekit.data.splits import split_dataset
from edgekit.parity.options import ParityOptions
from edgekit.steps.build_data import data_fingerprint
from tests import buckets
from tests.data.images import png, write
from tests.data.test_imagenet_c import imagenet_c


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def bucket() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch, buckets.server(patch) as client:
        yield client


@pytest.fixture
def memory() -> Iterator[Any]:
    pytest.importorskip("fsspec")
    from fsspec.implementations.memory import MemoryFileSystem

    yield MemoryFileSystem()
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


def photos(root: Path) -> Path:
    for seed, name in enumerate(("train/cat/a", "train/dog/deep/b", "test/cat/c", "test/dog/d")):
        write(root / f"{name}.png", seed)
    (root / "classes.txt").write_text("dog\tHund\ncat\tKatze\n")
    (root / "list.csv").write_text("path,label\ntrain/cat/a.png,cat\ntest/dog/d.png,dog\n")
    data = [np.frombuffer(png(seed), np.uint8) for seed in range(3)]
    offsets = np.cumsum([0, *map(len, data)])
    np.savez(root / "data.npz", jpeg=np.concatenate(data), offsets=offsets, labels=[0, 1, 0])
    return root


def same(one: Dataset, other: Dataset) -> bool:
    assert (one.classes, len(one)) == (other.classes, len(other))
    assert [one.key(i) for i in range(len(one))] == [other.key(i) for i in range(len(one))]
    assert labels(one).tolist() == labels(other).tolist()
    assert content_hash(one) == content_hash(other)
    assert {name: rows.tolist() for name, rows in one.given_splits.items()} == {
        name: rows.tolist() for name, rows in other.given_splits.items()
    }
    assert split_dataset(one).fingerprint() == split_dataset(other).fingerprint()
    return all(np.array_equal(one.image(i), other.image(i)) for i in range(len(one)))


@buckets.needed
@pytest.mark.parametrize("part", ["", "/train", "/list.csv", "/data.npz"])
def test_a_bucket_is_what_the_folder_is(bucket: Any, tmp_path: Path, part: str) -> None:
    url = buckets.upload(bucket, photos(tmp_path / "photos"), "photos")
    here, there = open_dataset(f"{tmp_path}/photos{part}"), open_dataset(f"{url}{part}")
    assert there.name == f"{url}{part}"
    assert same(here, there)
    assert same(here, pickle.loads(pickle.dumps(there)))


@buckets.needed
def test_published_images_in_a_bucket(bucket: Any, tmp_path: Path) -> None:
    imagenet_c(tmp_path / "published")
    url = buckets.upload(bucket, tmp_path / "published", "published")
    here = open_dataset(f"imagenet-c:{tmp_path}/published")
    there = pickle.loads(pickle.dumps(open_dataset(f"imagenet-c:{url}")))
    assert isinstance(here, ImageNetC)
    assert isinstance(there, ImageNetC)
    assert same(here, there)
    cells = pickle.loads(pickle.dumps(open_dataset(f"imagenet-c:{url}"))).cells()
    assert cells.keys() == here.cells().keys()
    assert all(same(cell, cells[name]) for name, cell in here.cells().items())


@buckets.needed
def test_nothing_is_fetched_twice(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = buckets.upload(bucket, photos(tmp_path / "photos"), "twice")
    before, prints = content_hash(open_dataset(url)), data_fingerprint(url)
    with monkeypatch.context() as patch:
        patch.setattr(RemoteFolder, "_fetched", None)
        again = open_dataset(url)
        assert content_hash(again) == before
        there = pickle.loads(pickle.dumps(again))  # as another process gets it
        assert all(there.image(index).shape == (6, 8, 3) for index in range(4))
    bucket.put_object(Bucket="lab", Key="twice/test/cat/c.png", Body=png(9))
    assert content_hash(open_dataset(url)) != before
    assert data_fingerprint(url) != prints
    for file in (tmp_path / "cache/remote").iterdir():  # a torn file is fetched again
        file.write_bytes(file.read_bytes()[:-1])
    assert open_dataset(url).image(0).shape == (6, 8, 3)


@buckets.needed
def test_names_of_an_enemy(bucket: Any, tmp_path: Path) -> None:
    good, odd = "cat/a.png", "cat/\x1b[31mred.png"
    others = ("../up.png", "cat/../up.png", "/cat/b.png", "cat//b.png", "cat/.hidden/b.png", "./b")
    for name in (good, odd, *others, "cat/", "dog/c.png"):
        bucket.put_object(
            Bucket="lab", Key=f"enemy/{name}", Body=png(1) if name[-1] != "/" else b""
        )
    dataset = open_dataset("s3://lab/enemy")
    assert dataset.classes == ("cat", "dog")
    assert {dataset.key(i) for i in range(len(dataset))} == {good, odd, "dog/c.png"}
    content_hash(dataset)
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert {path.parent.name for path in kept if path.name != "in-use"} == {"remote"}
    for path in ("../enemy/cat/a.png", "/etc/passwd", "s3://other/a.png", "cat/../../x.png"):
        bucket.put_object(Bucket="lab", Key="list/list.csv", Body=f"{path},cat\n".encode())
        listed = open_dataset("s3://lab/list/list.csv")
        with pytest.raises(BadImage, match="is not below s3://lab/list: name files that are"):
            listed.digest(0)


@buckets.needed
def test_sizes_of_an_enemy(bucket: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEKIT_MAX_FILE_MB", "1")
    bucket.put_object(Bucket="lab", Key="large/cat/a.png", Body=bytes((1 << 20) + 1))
    bucket.put_object(Bucket="lab", Key="large/cat/empty.png", Body=b"")
    dataset = open_dataset("s3://lab/large")
    for read in (dataset.digest, dataset.image):
        with pytest.raises(BadImage, match=r"a\.png would take 2 MiB of memory, more than 1 MiB"):
            read(0)
    with pytest.raises(BadImage, match="is not an image"):
        dataset.image(1)
    bucket.put_object(Bucket="lab", Key="large/cat/a.png", Body=png(1))  # since it was listed
    with pytest.raises(BadImage):
        dataset.image(0)
    bucket.put_object(Bucket="lab", Key="large/data.npz", Body=bytes(2 << 20))
    monkeypatch.setenv(LIMIT, "1")
    with pytest.raises(UsageError, match=f"more than the cache holds: set {LIMIT} to more"):
        open_dataset("s3://lab/large/data.npz")


def test_a_listing_that_is_too_long(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        memory.pipe_file(f"/many/cat/{number}.png", png(number))
    memory.pipe_file("/many" + "/deep" * 20 + "/a.png", png(0))
    with pytest.raises(UsageError, match="folders in folders more than 16 deep"):
        open_dataset("memory://many")
    monkeypatch.setattr(remote_folder, "_MOST_FILES", 10)
    with pytest.raises(UsageError, match="has more than 10 files and folders: name a smaller"):
        open_dataset("memory://many")


@buckets.needed
def test_a_listing_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_folder, "_ANSWER_SECONDS", 1)
    with endless(monkeypatch), pytest.raises(EdgekitError, match="is it a listing without end"):
        open_dataset("s3://lab/photos")


@contextmanager
def endless(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server that always has more."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = (
                b"<ListBucketResult><Name>lab</Name><IsTruncated>true</IsTruncated>"
                b"<NextContinuationToken>more</NextContinuationToken><Contents><Key>photos/a.png"
                b"</Key><Size>1</Size><ETag>x</ETag></Contents></ListBucketResult>"
            )
            self.send_response(200)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, format: str, *args: object) -> None:
            pass

    import fsspec

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:  # the client has hung up
            pass

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name, value in buckets.variables(server.server_address[1]).items():
            monkeypatch.setenv(name, value)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        yield
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        server.shutdown()


@buckets.needed
def test_credentials_are_never_printed(
    bucket: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import fsspec

    with socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler) as closed:
        port = closed.server_address[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}/{buckets.SECRET}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(fsspec.get_filesystem_class("s3"), "retries", 1)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(EdgekitError, match="cannot read s3://lab/photos: ") as caught:
        open_dataset("s3://lab/photos")
    assert "***" in str(caught.value)
    for text in (str(caught.value), caplog.text):
        assert buckets.SECRET not in text
        assert "nobody-may-see" not in text
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.mark.parametrize(
    "url", ["s3://key:password@lab/photos", "s3://lab/photos?X-Amz-Signature=password"]
)
def test_a_url_with_a_password_is_not_repeated(url: str) -> None:
    with pytest.raises(UsageError, match="credentials come from where") as caught:
        open_dataset(url)
    assert "password" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://host/photos", "'ftp://' is not read: use s3://BUCKET/FOLDER or gs://BUCKET/FOLDER"),
        ("https://example.org/x.zip", "'https://' is not read"),
        ("imagenet-c:file:///etc", "'file://' is not read"),
        ("s3://", "names no folder"),
        ("s3://lab/../photos", "names no folder"),
        ("s3://data.npz", "a file at the top of a bucket has no folder"),
        ("memory://nothing", "nothing is at memory://nothing"),
        ("memory://nothing/data.npz", "nothing is at memory://nothing/data.npz"),
    ],
)
def test_urls_that_are_not_data(memory: Any, url: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_dataset(url)


@pytest.mark.parametrize(("url", "package"), [("s3://lab/a", "s3fs"), ("gs://lab/a", "gcsfs")])
def test_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, url: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ToolchainMissing, match=rf"needs {package}.*pip install .*\[{url[:2]}\]"):
        open_dataset(url)


@pytest.mark.parametrize("uri", ["s3://enemy/photos", "imagenet-c:s3://enemy/photos"])
def test_a_bundle_does_not_choose_what_is_read(tmp_path: Path, uri: str) -> None:
    from edgekit.workflows.parity import _images

    nothing: Any = None
    with pytest.raises(UsageError, match=f"to read them, add --data {uri}"):
        _images(nothing, tmp_path, ParityOptions(), BuildRecord(data=uri), nothing, ())


def test_the_cache_is_bounded(tmp_path: Path) -> None:
    cache = RemoteCache(tmp_path / "cache", 64 * (1000 + DIGEST_BYTES))
    for number in range(200):
        cache.write(str(number), bytes([number]) * 1000)
        cache.read("0")  # what is used stays
    sizes = [path.stat().st_size for path in cache.folder.iterdir()]
    assert 32 < len(sizes) <= 65
    assert sum(sizes) <= cache.most + 1000 + DIGEST_BYTES
    assert cache.read("199") == bytes([199]) * 1000
    assert cache.read("0") == bytes(1000)
    assert cache.read("1") is None
    cache.write("large", bytes(1 << 20))  # more than all of it
    assert cache.read("large") is None


def test_nothing_imports_a_store_before_it_is_needed() -> None:
    assert importlib.util.find_spec("edgekit.data.remote_folder") is not None
    import subprocess

    code = "import sys, edgekit.data.datasets; sys.exit('fsspec' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
