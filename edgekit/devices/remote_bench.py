"""Runs ``edgekit bench`` on devices, each busy with one measurement, and brings back documents."""

from __future__ import annotations

import dataclasses
import threading
from collections import deque
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Final

from edgekit.bench.document import BenchReport, DeviceName
from edgekit.bench.options import BenchOptions
from edgekit.bundle.store import Bundle, open_bundle
from edgekit.core.console import Console
from edgekit.core.documents import DocumentError, parse_json
from edgekit.core.errors import EdgekitError, UsageError
from edgekit.devices.deployed import require_deployed
from edgekit.devices.failures import remote_failure
from edgekit.devices.fleet import on_all
from edgekit.devices.registry import Device, devices, find_device
from edgekit.devices.session import Session

ALL: Final = "all"
_IN_DOCUMENT: Final = ("warning: ", "not measured: ")


def bench_on_devices(
    paths: Sequence[Path], options: BenchOptions, devices: Sequence[Device], console: Console
) -> list[BenchReport | EdgekitError]:
    """What `edgekit bench` prints on each device, all at once, with this machine's bundle paths.

    A machine does one thing at a time, under however many names it is registered, and whoever
    else deploys or measures there is told that it is in use.
    """
    if options.baseline not in ("auto", "none"):
        raise UsageError(
            "--baseline with a file or bundle does not work on a device: leave it out, or compare "
            "two deployed bundles with --compare"
        )
    if options.compare and len(devices) > 1:
        raise UsageError("--compare is of one device: name one, bundles take turns there")
    options = dataclasses.replace(options, baseline="none")  # the original is not there
    bundles = [open_bundle(path, any_arch=True) for path in paths]

    turns = {(device.host, device.port): threading.Lock() for device in devices}

    def measured(session: Session, own: Console) -> BenchReport:
        with turns[session.device.host, session.device.port]:
            return _bench(session, bundles, options, own)

    return on_all(devices, console, measured)


def devices_of(name: str, targets: Set[str], console: Console) -> list[Device]:
    """The device called so; of ``all``, the registered ones that bundles for ``targets`` fit."""
    if name != ALL:
        return [find_device(name)]
    chosen = []
    for device in devices().values():
        if device.descriptor and device.descriptor not in targets:
            console.info(f"{device.name}: left out: it takes bundles for {device.descriptor}")
        else:
            chosen.append(device)
    if not chosen:
        raise UsageError(
            f"no registered device takes bundles for {', '.join(sorted(targets))}: "
            "'edgekit device list' shows them"
        )
    return chosen


def _bench(
    session: Session, bundles: Sequence[Bundle], options: BenchOptions, console: Console
) -> BenchReport:
    device = session.device
    lines: deque[str] = deque(maxlen=200)

    def take(line: str) -> None:
        lines.append(line)
        if not line.startswith(_IN_DOCUMENT):  # repeated when the document is shown
            console.info(line)

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
    if len(report.bundles) != len(bundles):
        raise EdgekitError(f"{source} does not cover {len(bundles)} bundles: deploy them again")
    documents = tuple(
        dataclasses.replace(
            entry,
            bundle=dataclasses.replace(entry.bundle, path=str(bundle.path)),
            device=DeviceName(device.name, device.host),
            looks=1,  # this machine's bundle counts its own
            beside=(),
        )
        for bundle, entry in zip(bundles, report.bundles, strict=True)
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
