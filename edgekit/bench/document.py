"""``bench.json``: what a run of ``edgekit bench`` found out about one bundle.

docs/benchmarking.md describes every key. A key changes its meaning only with `SCHEMA`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from edgekit import __version__
from edgekit.bench.options import BenchOptions
from edgekit.bundle.store import Bundle, update_bundle
from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError

SCHEMA: Final = 2
FILE: Final = "bench.json"
OWN: Final = "bundle"
"""What a bundle is called among the models that were timed with it."""

_LATENCY_KEYS: Final = ("candidate", "latencies", "ratios", "turns", "warmup_calls", "drift")

_WITH_LATENCY: Final = frozenset({"schema", "batch", "runtime", "cores", *_LATENCY_KEYS})


def empty_document(
    bundle: Bundle, options: BenchOptions, conditions: Mapping[str, Any]
) -> dict[str, Any]:
    """A bundle's document before anything was measured."""
    manifest = bundle.manifest
    return {
        "schema": SCHEMA,
        "edgekit": __version__,
        "measured": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "bundle": {
            "path": str(bundle.path),
            "identity": manifest.identity(),
            "target": manifest.target.name,
            "backend": manifest.target.backend,
            "precision": manifest.target.precision,
            "size_bytes": sum(entry.size for entry in manifest.files.values()),
        },
        "settings": options.to_dict(),
        "conditions": dict(conditions),
        "runtime": {},
        "self_test": None,
        "scenarios": {},
        "layers": None,
        "not_measured": [],
        "notes": [],
    }


def latency_summary(found: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a latency scenario that goes into the manifest."""
    return {name: found[name] for name in _LATENCY_KEYS}


def summary(document: Mapping[str, Any]) -> dict[str, Any]:
    """What the manifest's section ``bench`` keeps of a run: the figures one asks for first."""
    scenarios = document["scenarios"]
    kept: dict[str, Any] = {}
    if found := scenarios.get("latency"):
        kept |= {
            "schema": 1,
            "batch": found["images"],
            "runtime": document["runtime"],
            "cores": document["conditions"]["cores"]["usable"],
            **latency_summary(found),
        }
    if found := scenarios.get("throughput"):
        own = found["models"][found["candidate"]]
        kept["throughput"] = {
            name: own[name] for name in ("images_per_second", "streams", "images")
        }
    if found := scenarios.get("cold-start"):
        kept["cold_start_ms"] = {name: entry["median_ms"] for name, entry in found.items()}
    if found := scenarios.get("memory"):
        kept["peak_memory_mib"] = {name: entry["peak_mib"] for name, entry in found.items()}
    return kept


def save(path: Path, document: Mapping[str, Any], console: Console) -> None:
    """Put bench.json into the bundle and its summary into the manifest, if it is a folder.

    Runs with another batch or other threads than the bundle's own leave the summary alone, so
    that it always says what the bundle does as it is.
    """
    if not document["scenarios"] and document["layers"] is None:
        return  # all was measured in turns with other bundles, and is no bundle's own
    if not path.is_dir():
        console.warn(
            f"{path} is a .zip and stays as it is: unpack it to keep {FILE} in the bundle, or name "
            "a file with -o"
        )
        return
    settings = document["settings"]
    usual = settings["batch"] is None and settings["threads"] is None
    text = json.dumps(document, indent=1, sort_keys=True) + "\n"
    try:
        manifest = update_bundle(path, reports={FILE: text.encode()})
        if usual and (kept := summary(document)):
            before = manifest.sections.get("bench") or {}
            if before.get("ratios") and not kept.get("ratios"):  # without baselines it says less
                kept = {name: kept[name] for name in kept if name not in _WITH_LATENCY}
            section = {**before, **kept}
            update_bundle(path, sections={"bench": section})
    except (EdgekitError, PermissionError) as error:
        console.warn(f"{FILE} is not in the bundle: {error}")
