"""What `edgekit check` reports. Apart from the lint, which imports onnx."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from edgekit.core.documents import Document

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """One problem, or one thing that costs speed."""

    severity: Severity
    rule: str
    """Its short name."""
    node: str
    """Its name or, without one, its first output."""
    operator: str
    message: str
    fix: str

    def describe(self) -> str:
        """One line for the user."""
        return f"{self.operator} {self.node}: {self.message} [{self.rule}]; {self.fix}"


@dataclass(frozen=True)
class RtxReport:
    """TensorRT-RTX's verdict."""

    label: str
    version: str
    parsed: bool
    built: bool
    plugin_layers: int
    """How many nodes became our plugin."""
    engine_bytes: int
    seconds: float
    problem: str
    """Why it was refused, in one line; empty otherwise."""
    raw: str
    """TensorRT's own first error."""

    def describe(self) -> str:
        """One line for the user."""
        if self.problem:
            return f"{self.label}: refused by {self.version}: {self.problem}"
        lookup = f"{self.plugin_layers} plugin layer(s)" if self.plugin_layers else "no plugin"
        return f"{self.label}: {self.version} parsed and built it in {self.seconds:.1f} s, {lookup}"


@dataclass(frozen=True)
class CheckReport(Document):
    """Every node that a runtime would refuse or run slowly."""

    SCHEMA: ClassVar = 1

    file: str
    dialect: str
    findings: tuple[Finding, ...]
    rtx: RtxReport | None
    """Only with --rtx."""
