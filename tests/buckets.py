"""A server on this machine that speaks S3, for tests of s3:// URLs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

AVAILABLE = all(find_spec(name) for name in ("s3fs", "moto", "flask", "flask_cors"))
needed = pytest.mark.skipif(
    not AVAILABLE,
    reason="s3fs and moto[s3] with flask and flask-cors are not installed",
)
SECRET = "a-secret-that-nobody-may-see"


def variables(port: int) -> dict[str, str]:
    """What a user of such a server sets."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "a-key-that-nobody-may-see",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


@contextmanager
def server(patch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of a server with the empty bucket 'lab'; s3fs finds it, and programs started now."""
    import boto3
    import fsspec
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    try:
        port = running.get_host_and_port()[1]
        for name, value in variables(port).items():
            patch.setenv(name, value)
        # What it keeps is the process's: an earlier test's server may have filled it.
        urlopen(Request(f"http://127.0.0.1:{port}/moto-api/reset", method="POST")).close()
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        client = boto3.client("s3")
        client.create_bucket(Bucket="lab")
        yield client
    finally:
        running.stop()
        fsspec.get_filesystem_class("s3").clear_instance_cache()


def upload(client: Any, folder: Path, below: str) -> str:
    """Put a folder's files into the bucket; returns their URL."""
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            key = f"{below}/{file.relative_to(folder).as_posix()}"
            client.put_object(Bucket="lab", Key=key, Body=file.read_bytes())
    return f"s3://lab/{below}"
