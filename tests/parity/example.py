"""A parity document by hand, for tests of what is done with one."""

import dataclasses
from typing import Any

from edgekit.parity.document import (
    ClassAgreement,
    CodeAgreement,
    CorruptionChange,
    Divergence,
    EngineReport,
    ErrorsBySeverity,
    Estimate,
    MarginGroup,
    MarginHistogram,
    Margins,
    MeanError,
    OfBoth,
    ParityDocument,
    RelativeError,
    Usage,
    UsageOfBoth,
)
from edgekit.parity.options import Gates, ParityOptions

_BOTH = {"reference": 20.0, "candidate": 21.5}
_DELTA = {"delta": 1.5, "lower": 1.0, "upper": 2.0}
_SHARES = {"gaussian_noise": 0.9, "fog": 0.8}


def document(
    *,
    labeled: bool = True,
    images: int = 100,
    available: int = 100,
    gates: Gates = Gates(),  # noqa: B008 # frozen
    full: bool = False,
    **changes: Any,
) -> ParityDocument:
    """One that failed, over two corruptions and two severities."""
    change = CorruptionChange(
        **_BOTH, **_DELTA, averaged=True, errors=ErrorsBySeverity((10.0, 30.0), (11.0, 32.0))
    )
    usage = Usage(16, 9, 7.5)
    usual = ParityDocument(
        verdict="fail" if labeled else "unlabeled",
        reasons=("fail: it lost",),
        more_images=0,
        seen="seen=benchmark15",
        reference="float, ONNX Runtime",
        reference_engine=EngineReport("OpenVINO", "ONNX Runtime", 90, 10, 1, 0.5, "cheaper"),
        candidate="int8, openvino 1",
        same_source=True,
        data="photos",
        corrupted="in memory",
        corruptions=("gaussian_noise", "fog"),
        severities=(1, 3),
        seed=0,
        mode="full" if full else "stops when decided",
        gates=gates,
        images=images,
        images_available=available,
        severities_per_image=1,
        saved=0.5,
        inferences=300,
        inferences_cached=100,
        seconds=2.5,
        cpu_seconds=4.0,
        clean_error=OfBoth(**_BOTH) if labeled else None,
        corruption_error=MeanError(
            **_BOTH,
            **_DELTA,
            label="mCE",
            baseline="none",
            interval="anytime",
            confidence=0.95,
            fixed_sample=Estimate(1.5, 1.1, 1.9),
        )
        if labeled
        else None,
        relative_corruption_error=RelativeError(**_BOTH, label="relative mCE") if labeled else None,
        worst=("fog",) if labeled else (),
        asked=ParityOptions(gates=gates, full=full, images=available),
        top1_agreement=ClassAgreement(0.99, Estimate(0.9, 0.8, 0.95), _SHARES),
        kl_nats=Divergence(0.01, 0.1, _SHARES),
        codes=CodeAgreement(
            0.95,
            Estimate(0.85, 0.8, 0.9),
            _SHARES,
            UsageOfBoth(usage, usage),
            Margins(
                (0.25, 0.5, 0.75),
                MarginGroup(90, (0.1, 0.2, 0.3)),
                MarginGroup(10, None),
                MarginHistogram((0.0, 0.1, 0.2, 0.4), (0, 60, 30), (4, 6, 0)),
            ),
        ),
        per_corruption={"gaussian_noise": change, "fog": change} if labeled else None,
        measured="2026-01-01T00:00:00Z",
    )
    return dataclasses.replace(usual, **changes)
