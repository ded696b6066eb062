"""Path ensemble: exact when it vanishes, chosen by errors, part of what training guarantees."""

import itertools
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from edgekit.core.console import Console
from edgekit.core.errors import Interrupted, UsageError
from edgekit.core.progress import ProgressBar
from edgekit.data.corruption_grid import rotated_severities
from edgekit.model.backbones.registry import BACKBONES
from edgekit.model.config import VQSAConfig
from edgekit.model.vqsa import VQSA
from edgekit.training.config import TrainConfig
from edgekit.training.distributed import World
from edgekit.training.methods.base import deployable
from edgekit.training.methods.paths import Paths, ScaledPath
from edgekit.training.results import Evaluation
from edgekit.training.run import run_training
from edgekit.training.validation import Group, evaluate_images
from tests.export.models import TinyBackbone
from tests.training.test_run import assert_same, log_of, weights
from tests.training.training_data import QUIET, frozen_config
from tests.training.transformers import (
    BRANCHES,
    ENDS,
    TinyTransformer,
    end_of,
    needs_timm,
    silence,
)

pytestmark = needs_timm


def transformer(**options: object) -> VQSA:
    torch.manual_seed(0)
    config = VQSAConfig(**({"output": "none"} | options))  # type: ignore[arg-type]
    return VQSA(TinyTransformer(), 3, config).eval()


def paths_of(model: VQSA) -> dict[str, ScaledPath]:
    """By branch, once the method is attached."""
    found = ((n, m) for n, m in model.backbone.named_modules() if isinstance(m, ScaledPath))
    return {name.rpartition(".")[0]: path for name, path in found}


def test_a_whole_network_is_as_it_was_before_and_after() -> None:
    model, images = transformer().double(), torch.randn(4, 3, 32, 32, dtype=torch.float64)
    end_of(model.backbone, BRANCHES[0]).register_parameter("bias", None)
    names, modules = list(model.state_dict()), [str(module) for module in model.modules()]
    plain = model(images).logits
    method = Paths(2, model)
    method.attach(model)
    assert torch.equal(model(images).logits, plain)
    paths = paths_of(model)
    assert list(paths) == BRANCHES
    with torch.no_grad():
        for path in paths.values():
            path.scale.normal_(1.0, 0.3)
        scaled = model(images).logits
        for branch in BRANCHES[2:4]:
            paths[branch].kept.fill_(False)
            paths[branch].layer.weight[0, 0] = float("nan")  # whatever a removed layer holds
        removed = model(images).logits
    assert (scaled - plain).abs().max() > 1e-3
    assert (removed - scaled).abs().max() > 1e-3
    folded = deployable(model, [method])
    assert paths_of(model).keys() == paths.keys()  # which is left as it was
    torch.testing.assert_close(folded(images).logits, removed, rtol=0, atol=1e-10)
    assert list(folded.state_dict()) == names
    assert [str(module) for module in folded.modules()] == modules
    for branch in BRANCHES:
        layer = end_of(folded.backbone, branch)
        assert any(bool(one.any()) for one in layer.parameters()) == (branch not in BRANCHES[2:4])


def test_a_removed_path_learns_nothing_and_the_others_learn_their_scales() -> None:
    model = transformer()
    Paths(1, model).attach(model)
    paths = paths_of(model)
    paths[BRANCHES[1]].kept.fill_(False)
    model(torch.randn(2, 3, 32, 32)).logits.sum().backward()
    for branch, path in paths.items():
        assert (path.scale.grad is None) == (branch == BRANCHES[1])
    assert paths[BRANCHES[1]].layer.weight.grad is None


def groups_of(model: VQSA, images: int) -> list[Group]:
    """Images of which ``model`` knows the label, each in two views."""
    generator = torch.Generator().manual_seed(3)
    clean = 2 * torch.randn(images, 3, 32, 32, generator=generator)
    views = clean + 0.1 * torch.randn(2, *clean.shape, generator=generator)
    with torch.no_grad():
        labels = model(clean).logits.argmax(dim=1)
    pixels = views.transpose(0, 1).flatten(0, 1).numpy()
    return [Group(pixels, labels, rotated_severities(images, 1))]


def test_the_path_that_harms_is_the_first_to_go(capsys: pytest.CaptureFixture[str]) -> None:
    model = transformer()
    harmful, useless = BRANCHES[2], BRANCHES[5]
    silence(model.backbone, harmful)
    with torch.no_grad():
        model.head.classifier.weight.normal_()
        for parameter in end_of(model.backbone, useless).parameters():
            parameter.mul_(1e-6)
    groups = groups_of(model, 40)
    with torch.no_grad():
        for parameter in end_of(model.backbone, harmful).parameters():
            parameter.normal_(std=5.0)

    def evaluate(models: Sequence[VQSA]) -> list[Evaluation]:
        counts.append(len(models))
        return evaluate_images(models, groups, ["fog"], torch.device("cpu"), World())

    counts: list[int] = []
    method = Paths(2, model)
    method.attach(model)
    method.start(model, evaluate, Console())
    assert counts == [7, 6]  # the network itself, and what is left without each of its paths
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"removed {harmful}: validation error ")
    assert second.startswith(f"removed {useless}: validation error ")
    removed = [branch for branch, path in paths_of(model).items() if not path.kept]
    assert removed == [harmful, useless]
    (alone,) = evaluate([model])
    assert alone.clean_error < 0.2
    assert f"-> {alone.clean_error:.1%}, mean corruption error " in second
    assert second.endswith(f"-> {alone.mean_corruption_error:.1%}")


def test_what_was_removed_before_stays_removed() -> None:
    model = transformer()
    silence(model.backbone, *BRANCHES[:2])
    method = Paths(1, model)
    method.attach(model)
    kept = [branch for branch, path in paths_of(model).items() if path.kept]
    assert kept == BRANCHES[2:]
    with pytest.raises(UsageError, match=r"remove_paths 4 would remove all 4 paths .* 3 is the"):
        Paths(4, deployable(model, [method]))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, object]]:
    """Settings of a run that starts from a small trained transformer, head included."""
    folder = tmp_path_factory.mktemp("base")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "transformer", TinyTransformer)
        plain = {
            **vars(frozen_config(folder)),
            "backbone": "transformer",
            "weights": "none",
            "image_size": 32,
            "freeze": False,
            "cache": None,
            "validation_images": 9,
        }
        first = run_training(config(plain, epochs=1, out=folder / "base"), QUIET)
        yield plain | {"weights": str(first.last), "remove_paths": 2}


@pytest.fixture
def settings(base: dict[str, object], tmp_path: Path) -> dict[str, object]:
    return base | {"out": tmp_path / "run"}


def config(settings: dict[str, object], **changes: object) -> TrainConfig:
    return TrainConfig(**(settings | changes))  # type: ignore[arg-type]


def silent(out: Path) -> list[str]:
    """The branches that a checkpoint is without."""
    state = weights(out)
    ends = {b: f"backbone.{b}.{ENDS[b.rpartition('.')[2]]}" for b in BRANCHES}
    return [b for b, e in ends.items() if not any(state[f"{e}.{p}"].any() for p in _PARTS)]


_PARTS = ("weight", "bias")


def test_interrupted_and_resumed_is_bit_exact_and_scores_once(
    settings: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_training(config(settings, out=tmp_path / "whole"), Console())
    printed = capsys.readouterr().err
    assert printed.count("removed ") == 2
    advance, calls = ProgressBar.advance, 0

    def advance_and_interrupt(bar: ProgressBar, count: int = 1, figures: str = "") -> None:
        nonlocal calls
        calls += count == 1  # a step; images that are validated come in groups
        if calls == 5:  # noticed in the next step, within the second epoch
            signal.raise_signal(signal.SIGINT)
        advance(bar, count, figures)

    monkeypatch.setattr(ProgressBar, "advance", advance_and_interrupt)
    cut = config(settings, out=tmp_path / "cut")
    with pytest.raises(Interrupted):
        run_training(cut, Console())
    assert capsys.readouterr().err.count("removed ") == 2
    state = torch.load(cut.out / "state.pt", weights_only=True)
    for part in ("model", "average"):
        kept = [value for name, value in state[part].items() if name.endswith(".kept")]
        assert [bool(one) for one in kept].count(False) == 2
    assert weights(cut.out).keys() == load_file(str(settings["weights"])).keys()
    run_training(cut, Console())
    assert "removed " not in capsys.readouterr().err
    for name in ("last", "best"):
        assert_same(weights(tmp_path / "whole", name), weights(tmp_path / "cut", name))
    assert len(silent(cut.out)) == 2
    assert all(branch in printed for branch in silent(cut.out))
    # The next run starts from a network without them, and removes one more.
    more = run_training(
        config(settings, weights=str(cut.out / "last.safetensors"), remove_paths=1, epochs=1,
               denoise=1.0, out=tmp_path / "more"), QUIET
    )  # fmt: skip
    assert len(silent(more.out)) == 3
    assert set(silent(more.out)) > set(silent(cut.out))
    assert log_of(more.out)[1]["denoise"] > 0


def test_a_stop_is_heard_while_paths_are_scored(
    settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ProgressBar, "advance", lambda *_: signal.raise_signal(signal.SIGINT))
    with pytest.raises(Interrupted, match="run the same command to resume"):
        run_training(config(settings, validation_images=15, seen="benchmark15"), QUIET)


def test_a_head_that_was_trained_on_frozen_features_can_judge(
    settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However good it was with all paths, the best checkpoint is one without."""
    worse = itertools.count()
    monkeypatch.setattr(Evaluation, "criterion", property(lambda _: float(next(worse))))
    run = config(
        settings, codebook_size=8, freeze=True, epochs=1, finetune_epochs=1, precision="bf16"
    )
    result = run_training(run, QUIET)
    assert len(silent(result.out)) == 2
    assert_same(weights(result.out, "best"), weights(result.out, "last"))
    phases = [entry["phase"] for entry in log_of(result.out) if entry["event"] == "epoch"]
    assert phases == ["train head", "fine-tune"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"remove_paths": -1}, "remove_paths must be at least 0"),
        ({"remove_paths": 6}, "remove_paths 6 would remove all 6 paths of this backbone: 5 is"),
        ({"weights": "none"}, "without a trained head: give --weights with these classes"),
        ({"codebook_size": 8}, "without a trained head: .* with --freeze and --finetune-epochs"),
        ({"freeze": True}, "remove_paths acts on a backbone that learns, but this one is frozen"),
    ],
)
def test_what_it_needs(
    settings: dict[str, object], changes: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        run_training(config(settings, **changes), QUIET)


def test_a_backbone_without_paths_is_refused() -> None:
    model = VQSA(TinyBackbone(), 3, VQSAConfig(codebook_size=4))
    with pytest.raises(UsageError, match=r"no branches of a timm transformer .* leave --remove"):
        Paths(1, model)
