"""Every document that --json prints or that lies in a bundle, by name: what `edgekit schema` knows.

A command names those that it prints (``prints``). Their types are imported only here and where they
are made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgekit.core.documents import Document
from edgekit.core.json_schema import document_schema


@dataclass(frozen=True)
class Known:
    """A document, and where a reader meets it."""

    type: type[Document]
    where: str

    def schema(self, name: str) -> dict[str, Any]:
        """Its JSON Schema."""
        return document_schema(self.type, name, self.where)


def known_documents() -> dict[str, Known]:
    """All of them, in the order to list."""
    return {name: Known(*entry) for name, entry in (_printed() | _stored()).items()}


def _printed() -> dict[str, tuple[type[Document], str]]:
    from edgekit.bundle.signature import Signed, Verified
    from edgekit.cli.cache import CacheReport
    from edgekit.cli.completion import CompletionInstall, CompletionScript
    from edgekit.cli.parity_plan import ParityPlan
    from edgekit.cli.schema_list import SchemaList
    from edgekit.core.documents import Failure
    from edgekit.devices.check import CheckedDevices
    from edgekit.devices.deploy import Deployments
    from edgekit.devices.registry import AddedDevice, DeviceList, RemovedDevice
    from edgekit.devices.rollback import Rollbacks
    from edgekit.export.report import ExportReport
    from edgekit.field.monitor import Status
    from edgekit.graph.findings import CheckReport
    from edgekit.parity.across_document import AcrossDocument
    from edgekit.quantize.qat.results import FinetuneResult
    from edgekit.quantize.results import Calibrated, Sensitivity
    from edgekit.report.compared import ComparedReport
    from edgekit.report.gate import GatedBench, GatedParity
    from edgekit.report.page import WrittenReport
    from edgekit.runtime.document import PredictionList
    from edgekit.steps.build_report import BuildReport
    from edgekit.targets.listing import TargetList
    from edgekit.training.results import TrainResult
    from edgekit.workflows.build import BuildPlan
    from edgekit.workflows.doctor import DoctorReport
    from edgekit.workflows.inspect import BundleReport, CheckpointReport

    return {
        "bench": (GatedBench, "edgekit bench --json"),
        "build": (BuildReport, "edgekit build --json"),
        "build-plan": (BuildPlan, "edgekit build --dry-run --json"),
        "cache": (CacheReport, "edgekit cache --json"),
        "calibrate": (Calibrated, "edgekit calibrate --json"),
        "check": (CheckReport, "edgekit check --json"),
        "compare": (ComparedReport, "edgekit compare --json"),
        "completion": (CompletionScript, "edgekit completion SHELL --json"),
        "completion-install": (
            CompletionInstall,
            "edgekit completion --install --json, and --uninstall",
        ),
        "deploy": (Deployments, "edgekit deploy --json"),
        "deploy-rollback": (Rollbacks, "edgekit deploy --rollback --json"),
        "device-add": (AddedDevice, "edgekit device add --json"),
        "device-check": (CheckedDevices, "edgekit device check --json"),
        "device-list": (DeviceList, "edgekit device list --json"),
        "device-remove": (RemovedDevice, "edgekit device remove --json"),
        "doctor": (DoctorReport, "edgekit doctor --json"),
        "error": (Failure, "any command with --json that fails"),
        "export": (ExportReport, "edgekit export --json"),
        "finetune": (FinetuneResult, "edgekit finetune --json, and result.json beside its graph"),
        "inspect-bundle": (BundleReport, "edgekit inspect BUNDLE --json"),
        "inspect-checkpoint": (CheckpointReport, "edgekit inspect CHECKPOINT --json"),
        "parity": (GatedParity, "edgekit parity --json"),
        "parity-across": (AcrossDocument, "edgekit parity --across --json"),
        "parity-plan": (ParityPlan, "edgekit parity --plan --json"),
        "predict": (PredictionList, "edgekit predict --json"),
        "report": (WrittenReport, "edgekit report --json"),
        "schemas": (SchemaList, "edgekit schema --json"),
        "sensitivity": (Sensitivity, "edgekit calibrate --sensitivity --json"),
        "sign": (Signed, "edgekit sign --json"),
        "targets": (TargetList, "edgekit targets --json"),
        "train": (TrainResult, "edgekit train --json"),
        "verify": (Verified, "edgekit verify --json"),
        "watch": (Status, "edgekit watch --json"),
    }


def _stored() -> dict[str, tuple[type[Document], str]]:
    from edgekit.bench.document import BenchDocument, BenchSummary
    from edgekit.bundle.build_record import BuildRecord
    from edgekit.bundle.signature import StoredSignature
    from edgekit.field.reference import FieldReference
    from edgekit.parity.document import ParityDocument
    from edgekit.parity.examples import Examples
    from edgekit.quantize.calibration_images import ImageList
    from edgekit.quantize.qat.record import FinetuneRecord
    from edgekit.report.worst_folder import WorstImages
    from edgekit.workflows.inspect import StoredManifest

    listing = "calibration.json in a bundle, and FILE.images.json of edgekit calibrate"
    return {
        "bench-file": (BenchDocument, "bench.json in a bundle"),
        "bench-section": (BenchSummary, "sections.bench of a manifest"),
        "build-section": (BuildRecord, "sections.build of a manifest"),
        "calibration-file": (ImageList, listing),
        "examples-file": (Examples, "examples.json in a bundle"),
        "field-file": (FieldReference, "field.json in a bundle"),
        "finetuned-section": (FinetuneRecord, "sections.finetuned of a manifest"),
        "manifest-file": (StoredManifest, "manifest.json in a bundle"),
        "parity-file": (
            ParityDocument,
            "parity.json in a bundle or --out, graph-parity.json in a bundle, sections.parity "
            "and sections.graph_parity of a manifest",
        ),
        "signature-file": (StoredSignature, "signature.json in a bundle"),
        "worst-file": (WorstImages, "worst.json in the folder of edgekit parity --worst"),
    }
