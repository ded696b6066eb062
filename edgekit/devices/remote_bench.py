"""Runs ``edgekit bench`` on a device and brings back its document."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from edgekit.bench.document import BenchReport, DeviceName
from edgekit.bench.options import BenchOptions
from edgekit.bundle.store import open_bundle
from edgekit.core.console import Console
from edgekit.core.documents import DocumentError, parse_json
from edgekit.core.errors import EdgekitError, UsageError
from edgekit.devices.deployed import require_deployed
from edgekit.devices.failures import remote_failure
from edgekit.devices.registry import Device
from edgekit.devices.session import Session

_IN_DOCUMENT: Final = ("warning: ", "not measured: ")


def bench_on_device(
    paths: Sequence[Path], options: BenchOptions, device: Device, console: Console
) -> BenchReport:
    """The document that `edgekit bench` prints there, with this machine's bundle paths."""
    if options.baseline not in ("auto", "none"):
        raise UsageError(
            "--baseline with a file or bundle does not work on a device: leave it out, or compare "
            "two deployed bundles with --compare"
        )
    options = dataclasses.replace(options, baseline="none")  # the original is not there
    bundles = [open_bundle(path, any_arch=True) for path in paths]
    lines: deque[str] = deque(maxlen=200)

    def take(line: str) -> None:
        lines.append(line)
        if not line.startswith(_IN_DOCUMENT):  # repeated when the document is shown
            console.info(line)

    with Session(device) as session:
        places = [require_deployed(session, bundle) for bundle in bundles]
        pythons = {python for _, python in places}
        if len(pythons) > 1:
            raise UsageError("these bundles need different runtimes: benchmark them one by one")
        session.lock(places[0][0].lock)
        words = [place.bundle for place, _ in places]
        command = [*pythons, "-m", "edgekit", "bench", *words, "--json", *_words(options)]
        code, output = session.run(
            command, on_line=take, environment=places[0][0].environment, quiet_output=True
        )
    source = f"the answer of {device.name}"
    try:
        report = BenchReport.from_dict(parse_json(output, source), source)
    except DocumentError as error:
        # The device's own words say more, unless it claims that all went well.
        raise (error if code == 0 else remote_failure(device.name, code, lines)) from error
    if len(report.bundles) != len(paths):
        raise EdgekitError(f"{source} does not cover {len(paths)} bundles: deploy them again")
    documents = tuple(
        dataclasses.replace(
            entry,
            bundle=dataclasses.replace(entry.bundle, path=str(path)),
            device=DeviceName(device.name, device.host),
            looks=1,  # this machine's bundle counts its own
            beside=(),
        )
        for path, entry in zip(paths, report.bundles, strict=True)
    )
    return dataclasses.replace(report, bundles=documents)


def _words(options: BenchOptions) -> list[str]:
    """The options as on the command line, without those at their defaults."""
    words: list[str] = []
    for field in dataclasses.fields(BenchOptions):
        value = getattr(options, field.name)
        flag = f"--{field.name.replace('_', '-')}"
        if field.name == "scenarios":
            words += [word for name in value for word in ("--scenario", name)]
        elif field.name == "minutes":
            if "sustained" in options.scenarios:
                words += [flag, str(value)]
        elif value is True:
            words.append(flag)
        elif value is not None and value is not False and value != field.default:
            words += [flag, str(value)]
    return words
