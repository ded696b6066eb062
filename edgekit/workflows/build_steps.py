"""The steps of a build as objects: what each depends on, where it is stored, what it calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from edgekit.bench.document import BenchSummary
from edgekit.bundle.manifest import FIELD, MANIFEST, Manifest
from edgekit.bundle.store import zip_bundle
from edgekit.metrics.planning import outlook
from edgekit.parity.document import GRAPH_SECTION
from edgekit.quantize.recipes import Recipe, check_dialect
from edgekit.report.page import write_report
from edgekit.steps.artifacts import Built, Checkpoint, Exported, Quantized
from edgekit.steps.build_data import BuildData, SplitImages, split_images
from edgekit.steps.build_record import (
    BuildParity,
    bench_of_build,
    build_key,
    finished,
    made_by_build,
)
from edgekit.steps.bundling import compile_bundle, mark_complete, why_not_measured, zip_path
from edgekit.steps.calibration import (
    Calibration,
    ChosenImages,
    cached_calibration,
    calibrate,
    calibrate_alike,
    choose_calibration_images,
    leave_float,
    take_finetuned,
)
from edgekit.steps.config import BuildConfig
from edgekit.steps.context import Context
from edgekit.steps.field_options import FieldOptions, recorded
from edgekit.steps.field_reference import (
    check_enough,
    leave_out_reference,
    options_for,
    store_reference,
    why_too_few,
)
from edgekit.steps.float_model import (
    BUILTIN_FOLDER,
    cached_export,
    export,
    known_checkpoint,
    name_classes,
    obtain_checkpoint,
)
from edgekit.steps.options import BundleOptions, DataOptions, SourceOptions
from edgekit.steps.step import State, Step
from edgekit.targets.descriptor import Descriptor
from edgekit.targets.dialects import find_dialect

T = TypeVar("T")


class Load(Step[Checkpoint]):
    """The checkpoint: the user's, or the built-in one."""

    name = "load"

    def __init__(self, context: Context, source: SourceOptions) -> None:
        super().__init__(context, writes=source.checkpoint or context.cache / BUILTIN_FOLDER)
        self.source, self.given = source, source.checkpoint is not None

    def _stored(self) -> Checkpoint | None:
        return known_checkpoint(self.context, self.source)

    def _make(self) -> Checkpoint:
        again = self.name in self.context.forced  # another build may be training it right now
        return obtain_checkpoint(self.context, self.source, again=again)


@dataclass(frozen=True)
class Original:
    """The float model, and the images that go with it."""

    exported: Exported
    data: BuildData


class Export(Step[Original]):
    """The float graph; with it, the images' labels are matched to the model's classes."""

    name = "export"

    def __init__(
        self,
        context: Context,
        loaded: Load,
        images: DataOptions,
        tolerance: float | None,  # of the comparison; None: there will be none
        *,
        watch: bool,  # a monitor's reference must be made
    ) -> None:
        super().__init__(context, loaded, writes=context.cache / "export")
        self.loaded, self.images = loaded, images
        self.tolerance, self.watch = tolerance, watch
        self.reads: set[str] = set()  # parts of the images that later steps cannot do without

    def _stored(self) -> Original | None:
        exported = cached_export(self.context, self.loaded.result, self.loaded.source)
        return None if exported is None else self._with_images(exported, self._opened())

    def _make(self) -> Original:
        images = self._opened()  # before the export, whose half a minute would be in vain
        checkpoint, source = self.loaded.result, self.loaded.source
        exported = export(self.context, checkpoint, source, check=images.matched, again=True)
        return self._with_images(exported, images)

    def _describe(self, result: Original) -> str:
        return result.exported.describe()

    def _opened(self) -> SplitImages:
        """The images, if each part that a later step reads has some."""
        images = split_images(self.images)
        images.need(*sorted(self.reads))
        if self.watch:
            check_enough(images.splits.part("validation", images.dataset))
        return images

    def _with_images(self, exported: Exported, images: SplitImages) -> Original:
        data = images.matched(exported.card.classes)
        if data.note:
            self.context.console.warn(data.note)
        if self.tolerance is not None and data.labeled:
            self.context.console.info(outlook(len(data.splits.test), self.tolerance))
        return Original(name_classes(exported, data), data)


class Calibrate(Step[Quantized]):
    """The INT8 graph of a target; targets that calibrate alike share it."""

    name = "calibrate"

    def __init__(
        self,
        context: Context,
        exported: Export,
        descriptor: Descriptor,
        recipe: Recipe,
        earlier: Sequence[Calibrate],  # of the same build
    ) -> None:
        where = context.cache / "calibrate"
        super().__init__(context, exported, target=descriptor.name, writes=where)
        self.exported, self.recipe, self.earlier = exported, recipe, earlier
        self.dialect = find_dialect(descriptor.dialect)
        check_dialect(recipe, self.dialect)  # before anything takes minutes

    def _left_by_another(self) -> bool:
        return any(
            step.state == "to do" and calibrate_alike(self.recipe, step.dialect, self.dialect)
            for step in self.earlier
        )

    def _stored(self) -> Quantized | None:
        return cached_calibration(self.context, self._calibration)

    def _make(self) -> Quantized:
        return calibrate(self.context, self._calibration, again=True)

    def _describe(self, result: Quantized) -> str:
        return result.describe()

    @cached_property
    def _calibration(self) -> Calibration:
        original = self.exported.result
        return Calibration(original.exported, original.data, self.chosen, self.dialect)

    @cached_property
    def chosen(self) -> ChosenImages:
        """The images, the same ones for all targets."""
        if self.earlier:
            return self.earlier[0].chosen
        data = self.exported.result.data
        return choose_calibration_images(self.context.console, data, self.recipe)


class TakeFinetuned(Step[Quantized]):
    """The user's fine-tuned graph instead of a calibration."""

    name = "calibrate"
    given = True

    def __init__(
        self, context: Context, exported: Export, descriptor: Descriptor, path: str
    ) -> None:
        super().__init__(context, exported, target=descriptor.name, writes=path)
        self.exported, self.path, self.dialect = exported, Path(path), descriptor.dialect

    def _stored(self) -> Quantized | None:
        return None  # reading it shows whether it fits

    def _make(self) -> Quantized:
        exported = self.exported.result.exported
        return take_finetuned(self.context.console, exported, self.path, self.dialect)


class BundlePlace:
    """Where a target's bundle goes, and what an earlier build left there."""

    def __init__(self, config: BuildConfig, descriptor: Descriptor, loaded: Load) -> None:
        self.config, self.descriptor, self.loaded = config, descriptor, loaded
        self.path = config.path_of(descriptor)

    @cached_property
    def options(self) -> BundleOptions:
        """How the bundle is written; known once the checkpoint is."""
        key = build_key(self.config, self.descriptor, self.loaded.result.sha256)
        return self.config.bundle(self.descriptor, key)

    @cached_property
    def earlier(self) -> Manifest | None:
        """The manifest of a complete bundle of the same build; None if the checkpoint is new."""
        return None if self.loaded.reruns else finished(self.path, self.options.record.key)


class BundleStep(Step[T]):
    """A step whose result is stored in the bundle."""

    state_if_stored: State = "up to date"

    def __init__(self, context: Context, place: BundlePlace, *after: Step[Any]) -> None:
        super().__init__(context, *after, target=place.descriptor.name, writes=place.path)
        self.place = place


class Compile(BundleStep[Built]):
    """The bundle itself."""

    name = "compile"

    def __init__(
        self,
        context: Context,
        place: BundlePlace,
        exported: Export,
        quantized: Step[Quantized] | None,  # None: the bundle holds the float graph
    ) -> None:
        super().__init__(context, place, quantized or exported)
        self.exported, self.quantized = exported, quantized

    def _stored(self) -> Built | None:
        place, manifest = self.place, self.place.earlier
        return None if manifest is None else Built(place.path, place.descriptor, manifest)

    def _make(self) -> Built:
        original, place = self.exported.result, self.place
        quantized = self.quantized.result if self.quantized else leave_float(original.exported)
        return compile_bundle(
            self.context, quantized, place.descriptor, place.options, original.data
        )


class Measurement(BundleStep[T]):
    """A measurement of the bundle, if this machine can run it."""

    def __init__(self, context: Context, compiled: Compile) -> None:
        super().__init__(context, compiled.place, compiled)
        self.compiled = compiled
        self.why = why_not_measured(compiled.place.descriptor) or ""

    def _section(self, name: str = "") -> object:
        earlier = self.place.earlier
        return None if earlier is None else earlier.sections.get(name or str(self.name))


class Bench(Measurement[BenchSummary]):
    """Latency, compared with the float model's."""

    name = "bench"

    def _stored(self) -> BenchSummary | None:
        return bench_of_build(self._section())

    def _make(self) -> BenchSummary:
        from edgekit.steps.benchmark import bench

        exported = self.compiled.exported.result.exported
        seconds = self.place.config.bench_seconds
        return bench(self.context.console, self.compiled.result, exported, seconds)


class Parity(Measurement[BuildParity]):
    """Robustness, compared with the float model's."""

    name = "parity"

    def _stored(self) -> BuildParity | None:
        # `edgekit parity` may have replaced it.
        return made_by_build(self._section(), self.place.config)

    def _make(self) -> BuildParity:
        from edgekit.workflows.parity import parity_of_build

        original, config = self.compiled.exported.result, self.place.config
        document = parity_of_build(
            self.context,
            self.compiled.result.path,
            original.exported,
            original.data,
            config.comparison(),
            pictures=config.images,
        )
        return BuildParity(document, document.looks)


class GraphParity(Measurement[BuildParity]):
    """Robustness of the graph of a bundle whose engine is built on its device."""

    name = "graph-parity"

    def __init__(self, context: Context, compiled: Compile) -> None:
        super().__init__(context, compiled)
        self.why = ""  # ONNX Runtime runs it anywhere

    def _stored(self) -> BuildParity | None:
        return made_by_build(self._section(GRAPH_SECTION), self.place.config, "graph")

    def _make(self) -> BuildParity:
        from edgekit.workflows.parity import parity_of_graph

        original, options = self.compiled.exported.result, self.place.config.comparison()
        path = self.compiled.result.path
        document = parity_of_graph(self.context, path, original.exported, original.data, options)
        return BuildParity(document, document.looks)


class Watch(Measurement[FieldOptions]):
    """What the bundle's answers look like, for the monitor of a deployed model."""

    name = "watch"

    def __init__(self, context: Context, compiled: Compile, *, optional: bool) -> None:
        super().__init__(context, compiled)
        self.optional = optional  # too few images are no error

    def _stored(self) -> FieldOptions | None:
        earlier = self.place.earlier
        options = recorded(self._section("field"), self.place.config.watch_images)
        if earlier is None or options is None:
            return None
        return options if self.optional or FIELD in earlier.files else None

    def _make(self) -> FieldOptions:
        original, asked = self.compiled.exported.result, self.place.config.watch_images
        data = original.data
        validation = data.splits.part("validation", data.dataset)
        path, console = self.compiled.result.path, self.context.console
        options = options_for(original.exported, asked, len(validation), console)
        if self.optional and (why := why_too_few(validation)):
            console.info(f"watch: no reference for a monitor: {why}")
            leave_out_reference(path, options)
        else:
            store_reference(path, validation, console, options, labeled=data.labeled)
        return options


class Finish(BundleStep[Path]):
    """The report, the mark that the bundle is complete, and the .zip."""

    def __init__(
        self, context: Context, compiled: Compile, measured: Sequence[Measurement[Any]]
    ) -> None:
        super().__init__(context, compiled.place, compiled, *measured)
        self.measured = measured
        self.zip = zip_path(self.place.path) if self.place.config.zip else None

    def _stored(self) -> Path | None:
        whole = self.place.earlier is not None and (self.zip is None or self._zipped(self.zip))
        return self.place.path if whole else None

    def _zipped(self, target: Path) -> bool:
        """Whether the .zip exists and is newer than the bundle's last change."""
        manifest = self.place.path / MANIFEST
        if not (target.exists() and manifest.exists()):
            return False
        return target.stat().st_mtime_ns >= manifest.stat().st_mtime_ns

    def _make(self) -> Path:
        path = self.place.path
        write_report(path)
        mark_complete(path, self.place.options.record)
        if self.zip is not None:
            zip_bundle(path, self.zip)
            self.context.console.info(f"zip: wrote {self.zip}")
        return path
