"""OpenVINO's devices: what to ask for, how to set it up, and what really computes.

AUTO, MULTI, HETERO and BATCH choose among others. AUTO moves to the CPU without a word: while it
compiles for another device, if that fails, and if there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from edgekit.core.errors import EdgekitError, ToolchainMissing, UsageError
from edgekit.core.typed_toml import nearest
from edgekit.targets.intel_devices import REMEDIES

_CHOOSES: Final = ("AUTO", "MULTI", "HETERO", "BATCH")
_KNOWN: Final = (*_CHOOSES, "CPU", *REMEDIES)


def execution_devices(compiled: Any) -> tuple[str, ...]:
    """The devices that compute; AUTO has its stand-in CPU in parentheses."""
    return tuple(str(name).strip("()") for name in compiled.get_property("EXECUTION_DEVICES"))


def fell_back(asked: str, executed: Sequence[str]) -> bool:
    """Whether ``executed`` devices leave out the first that ``asked`` names.

    AUTO and the like without a list are asked for anything better than the CPU.
    """
    first = _first(asked)
    if first is None:
        return all(_is("CPU", device) for device in executed)
    return not any(_is(first, device) for device in executed)


def check_device(core: Any, asked: str, task: str, *, allow_fallback: bool) -> None:
    """Refuse, in a line, a device that OpenVINO does not find on this machine."""
    kind = asked.partition(":")[0].partition(".")[0]
    if kind not in _KNOWN:
        raise UsageError(f"OpenVINO has no device '{kind}'{nearest(kind, list(_KNOWN))}: {task}")
    first = _first(asked)
    if first in (None, "CPU"):  # asking for others would load their drivers
        return
    if any(_is(first, device) for device in core.available_devices):
        return
    remedy = REMEDIES.get(first.partition(".")[0], "another device")
    missing = f"{task}: OpenVINO finds no {first} on this machine, it needs {remedy}"
    if kind not in _CHOOSES:
        raise ToolchainMissing(missing)
    if not allow_fallback:
        raise EdgekitError(
            f"{missing}; {asked} would silently run elsewhere, --allow-fallback accepts that"
        )


def without_missing(core: Any, asked: str) -> str:
    """``asked`` without the listed devices that are not there.

    Where its first device cannot be had, AUTO goes on with its stand-in CPU, whose request once
    answered three images with one row.
    """
    kind, _, listed = asked.partition(":")
    first = _first(asked)
    if kind not in _CHOOSES or first in (None, "CPU"):
        return asked
    there = core.available_devices
    if any(_is(str(first), device) for device in there):
        return asked
    names = [name.strip() for name in listed.split(",")]
    left = [name for name in names if any(_is(name.split("(")[0], one) for one in there)]
    if not left:
        raise ToolchainMissing(f"OpenVINO finds none of {listed} on this machine")
    return left[0] if len(left) == 1 else f"{kind}:{','.join(left)}"


def device_settings(core: Any, asked: str) -> dict[str, str | int]:
    """The part of a model's configuration that its device decides."""
    kind, first = asked.partition(":")[0], _first(asked)
    settings: dict[str, str | int] = {}
    if kind in ("AUTO", "MULTI"):
        # Answers must come from one device: not from the CPU until another is ready or after it
        # failed. With nothing but the CPU, OpenVINO does not run where a stand-in is forbidden.
        settings["ENABLE_RUNTIME_FALLBACK"] = False
        others = [device for device in core.available_devices if device != "CPU"]
        if first != "CPU" and any(first is None or _is(first, device) for device in others):
            settings["ENABLE_STARTUP_FALLBACK"] = False
    return settings


def _first(asked: str) -> str | None:
    """The device to prefer, if one is named."""
    kind, _, listed = asked.partition(":")
    if kind not in _CHOOSES:
        return asked
    first = listed.split(",")[0].split("(")[0].strip()
    return first if first and not first.startswith("-") else None  # -GPU: anything but that


def _is(device: str, one: str) -> bool:
    """Whether ``one`` is that device: GPU.0 is a GPU."""
    return one == device or one.startswith(f"{device}.")
