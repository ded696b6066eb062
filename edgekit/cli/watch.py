"""``edgekit watch``: does a deployed model still see what it was tested on?"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.common import Command, common, output_file
from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError, GateFailed, UsageError

if TYPE_CHECKING:
    from edgekit.field.monitor import Monitor, Status
    from edgekit.runtime.model import Item, Prediction

_NORMAL = "images look normal again"
_SHOWN = 0.01  # weight of a resemblance that is worth a word
_SILENCE_SECONDS = 600.0  # without an image that are worth a word
_EVERY_SECONDS = 10.0  # between two lines about the state


@click.command(
    cls=Command,
    prints=("watch",),
    short_help="Notice, without labels, that images have changed.",
    examples="""
    edgekit watch build/cpu /var/camera --state pole.json
    edgekit watch build/cpu camera:0 --every 300 --metrics 9464
    edgekit watch build/cpu /var/camera --metrics /var/lib/node/pole.prom
    edgekit watch build/cpu photos/ --once || echo "not what it was tested on"
    ls -tr frames/*.jpg | edgekit watch build/cpu - --once --json
    my-camera-program | edgekit watch build/cpu - --state pole.json
    edgekit watch build/cpu --state pole.json --accept
    edgekit watch --device pole --once
    """,
)
@click.argument("bundle", type=click.Path(path_type=Path), required=False)
@click.argument("source", required=False)
@click.option("--state", type=click.Path(path_type=Path), help="File to go on from, and to keep.")
@click.option("--once", is_flag=True, help="End after the images that are there.")
@click.option("--every", type=click.IntRange(1), default=1, help="Watch only every n-th image.")
@click.option(
    "--images-a-false-alarm",
    type=click.FloatRange(10),
    default=100_000,
    show_default=True,
    help="Images between two false alarms, on average at least.",
)
@click.option(
    "--metrics",
    metavar="WHERE",
    help="For Prometheus: a PORT of this machine alone, HOST:PORT, or a file named *.prom.",
)
@click.option("--accept", is_flag=True, help="What it saw last is normal here: begin anew.")
@click.option("--device", help="Ask a monitor that runs there; watch nothing here.")
@common
def watch(
    console: Console,
    bundle: Path | None,
    source: str | None,
    state: Path | None,
    once: bool,
    every: int,
    images_a_false_alarm: float,
    metrics: str | None,
    accept: bool,
    device: str | None,
) -> None:
    """Classify the images of SOURCE with BUNDLE, and say when they have changed.

    SOURCE is a folder (new files are watched as they come), an image, a list of files, a
    video, camera:0, or - for standard input: file names, or the predictions that your own
    program made with BUNDLE, one JSON object a line. The bundle must have a monitor's reference,
    which 'build' makes of 50 validation images or more. Images should not be almost the same: of
    a video, watch a frame now and then (--every).

    With --device, of BUNDLE only the name counts, and it may be left out if a single bundle is
    watched there. --state is that monitor's file there, unless it is ~/.edgekit/watch/NAME.json.

    Exits with 3 if the images have changed by the end, with 5 if the device cannot tell.
    """
    if device is not None:
        if source is not None or metrics is not None or accept or every > 1:
            raise UsageError("--device takes a BUNDLE, --state and --once: it watches nothing here")
        _ask(console, bundle, device, state, once)
        return
    if bundle is None:
        raise UsageError("name the bundle to watch with, or a --device whose monitor to ask")
    from edgekit.field.metrics import exposition, keep_metrics
    from edgekit.field.monitor import Monitor

    if state is not None:
        state = output_file(state, "--state ")
    if accept:
        if source is not None or state is None:
            raise UsageError("--accept takes a --state file, and no SOURCE: it watches nothing")
        monitor = Monitor(bundle, state=state, images_a_false_alarm=images_a_false_alarm)
        monitor.accept()
        console.info(f"{state}: its last images count as normal now")
        console.document(monitor.status())
        return
    if source is None:
        raise UsageError("name what to watch: a folder, a list, a video, camera:0 or -")
    monitor = Monitor(bundle, state=state, images_a_false_alarm=images_a_false_alarm)
    name = bundle.resolve().name.removesuffix(".zip") if state is None else state.stem
    before = monitor.status()
    with (
        monitor,
        keep_metrics(metrics, lambda: exposition(monitor.status(), name), console) as publish,
    ):
        watched = _watch(console, monitor, bundle, source, once, every, publish)
    status = monitor.status()
    if watched == status.skipped - before.skipped:
        raise _nothing(source, watched)
    _conclude(console, status)


def _conclude(console: Console, status: Status) -> None:
    for line in lines(status):
        console.text(line)
    console.document(status)
    if status.changed:
        raise GateFailed(f"the images have changed since image {status.since_image}")


def _watch(
    console: Console,
    monitor: Monitor,
    bundle: Path,
    source: str,
    once: bool,
    every: int,
    publish: Callable[[], None],
) -> int:
    """How many images there were, readable or not."""
    changed, said, count = monitor.changed, time.monotonic(), 0
    for prediction in _predictions(bundle, source, follow=not once, every=every):
        count += 1
        if prediction.error is not None:
            console.warn(prediction.error)
        monitor.update(prediction)
        late = time.monotonic() > said + _EVERY_SECONDS
        if not late and monitor.changed == changed:
            continue
        status = monitor.status()
        if status.changed != changed:
            for line in lines(status) if status.changed else [_NORMAL]:
                console.info(line)
        else:
            console.info(lines(status)[0])
        publish()
        changed, said = status.changed, time.monotonic()
    return count


def _predictions(bundle: Path, source: str, *, follow: bool, every: int) -> Iterator[Prediction]:
    """Those of the source's images, or those that standard input already is."""
    from edgekit.field.given import read_predictions
    from edgekit.field.sources import STDIN, open_source, stdin_lines
    from edgekit.runtime.model import load

    images: Iterator[Item]
    if source == STDIN:
        given = stdin_lines()
        first = next(given, "")
        lines = islice(chain([first], given) if first else given, 0, None, every)
        if first.startswith("{"):
            yield from read_predictions(lines, "standard input")
            return
        images = iter(lines)
    else:
        images = open_source(source, follow=follow, every=every)
    model = load(bundle)
    yield from model.predict_stream(images, batch=model.manifest.target.batch or 1)


def _ask(
    console: Console, bundle: Path | None, device: str, state: Path | None, once: bool
) -> None:
    """Show what a monitor on a device says: once, or until Ctrl-C or the link breaks."""
    from edgekit.devices.registry import find_device
    from edgekit.devices.remote_watch import watch_on_device

    there = None if state is None else str(state)
    before: Status | None = None
    asked = watch_on_device(bundle, find_device(device), state=there, follow=not once)
    with contextlib.closing(asked):
        for status in asked:
            if once:
                break
            if before is None or status.changed != before.changed:
                told = lines(status) if before is None or status.changed else [_NORMAL]
                for line in told:
                    console.info(line)
            elif status.images != before.images:
                console.info(lines(status)[0])
            before = status
    _conclude(console, status)


def _nothing(source: str, unreadable: int) -> EdgekitError:
    if unreadable:
        return EdgekitError(f"none of the {unreadable} images of {source} could be read")
    return UsageError(f"{source} has no images")


def lines(status: Status) -> list[str]:
    """The state for people."""
    evidence = f"evidence 10^{max(status.evidence, 0):.1f} of 10^{status.threshold:.1f}"
    state = "changed" if status.changed else "normal"
    found = [f"{state}: {status.images:,} images, {evidence}"]
    if status.last_time is not None and time.time() - status.last_time > _SILENCE_SECONDS:
        found.append(f"no image since {_clock(status.last_time)}")
    if status.skipped:
        found.append(f"{status.skipped:,} images could not be read")
    if status.too_alike:
        found.append(
            f"neighboring images are {status.alike:.1f} times as alike as independent ones: "
            "false alarms are likely; watch fewer (--every)"
        )
    look = status.outlook
    if look is None:
        return found
    if status.since_time is not None:
        found.append(f"since image {status.since_image:,}, seen at {_clock(status.since_time)}")
    if look.unknown >= 0.5 or not look.resembles:
        found.append("looks like nothing it knows: new content, or an unknown corruption")
    else:
        names = [
            f"{one.corruption.replace('_', ' ')} {one.severity} ({one.weight:.0%})"
            for one in look.resembles
            if one.weight >= _SHOWN or one is look.resembles[0]
        ]
        found.append(f"looks like {', '.join(names)}")
    if look.error is not None and status.clean_error is not None:
        found.append(
            f"expect {100 * look.error.mean:.0f}% errors [{100 * look.error.low:.0f}, "
            f"{100 * look.error.high:.0f}] instead of {100 * status.clean_error:.0f}%"
        )
    if status.mixture is not None:
        found.append(_MIXTURES[status.mixture.sign])
    return found


def _clock(seconds: float) -> str:
    """The device's seconds since 1970, which may be any number, in this machine's time zone."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    except (ValueError, OverflowError, OSError):
        return f"second {seconds:.0f}"


_MIXTURES = {
    "classes": "the mix of predicted classes has changed, and nothing within the classes: it may "
    "only be other content (--accept, if it is normal here)",
    "within classes": "images of the same classes look different: a corruption is likely",
    "both": "the mix of predicted classes has changed, and images within the classes as well",
    "neither": "too few images yet to tell another mix of classes from a corruption",
}
