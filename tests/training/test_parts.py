"""The trainer's parts: draws, evaluation design, stores, schedules, averages, saved state."""

import dataclasses
import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit.cli.train import train as train_command
from edgekit.core.errors import UsageError
from edgekit.core.typed_toml import parse_toml, to_toml
from edgekit.data.arrays import NpzDataset
from edgekit.data.corruption_grid import rotated_severities
from edgekit.data.corruptions import BENCHMARK15, corrupt
from edgekit.data.transforms import Preprocessing
from edgekit.model.backbones.registry import create_backbone
from edgekit.model.config import VQSAConfig
from edgekit.model.vqsa import VQSA
from edgekit.training.batches import Order
from edgekit.training.config import TrainConfig
from edgekit.training.corruption_schedule import (
    CLEAN,
    Corruption,
    noise_seed,
    training_views,
)
from edgekit.training.distributed import World
from edgekit.training.evaluation import Choices, Tally
from edgekit.training.feature_store import SHARD_ROWS, ArrayStore, fill_store, shard_path
from edgekit.training.optimizer import AveragedWeights, learning_rate
from edgekit.training.run_state import load_state
from edgekit.training.views import LoadedViews, View, ViewLoader
from tests.training.training_data import write_data

CPU = torch.device("cpu")


def test_sampled_pairing_draws_80_pairs_and_clean_alike() -> None:
    drawn = Counter(
        view for i in range(16_000) for view in training_views("sampled", BENCHMARK15, 0, 0, str(i))
    )
    # Clean counts as a sixteenth type; each pair of the others is one of 75 in the rest.
    assert len(drawn) == 76
    assert drawn[CLEAN] == pytest.approx(1000, abs=5 * 31)
    assert all(abs(count - 200) < 5 * 14.2 for view, count in drawn.items() if view != CLEAN)


def test_paired_and_clean_pairing() -> None:
    clean, corrupted = training_views("paired", ("fog", "snow"), 3, 5, "a")
    assert clean == CLEAN
    assert corrupted.name in ("fog", "snow")
    assert training_views("paired", ("fog", "snow"), 3, 5, "a") == (clean, corrupted)
    epochs = {training_views("paired", ("fog", "snow"), 3, epoch, "a") for epoch in range(50)}
    assert len(epochs) == 10
    assert training_views("clean", (), 0, 0, "a") == (CLEAN,)
    seeds = {noise_seed(seed, epoch) for seed in range(20) for epoch in range(20)}
    assert len(seeds) == 400
    assert 0 not in seeds  # evaluation's


@pytest.mark.parametrize("count", [5, 12, 500])
def test_every_severity_has_a_fifth_of_the_images(count: int) -> None:
    table = rotated_severities(count, 5)
    for severities in table.T:
        counts = np.bincount(severities, minlength=6)[1:]
        assert counts.max() - counts.min() <= 1
    assert (np.arange(1, 6) == np.sort(table, axis=1)).all()  # five types: five severities


def test_severities_do_not_follow_the_order_of_the_images() -> None:
    severities = rotated_severities(1000, 1)[:, 0]
    for start in range(10):  # classes often take turns in a data set
        assert len(np.unique(severities[start::10])) == 5


def test_a_view_is_the_fitted_image_corrupted_by_its_key(tmp_path: Path) -> None:
    dataset = NpzDataset(write_data(tmp_path), "levels")
    preprocessing = Preprocessing(size=(24, 24))
    view = View(3, (CLEAN, Corruption("fog", 2)), noise_seed=9)
    seen = ViewLoader(preprocessing)(dataset, view)
    assert isinstance(seen, LoadedViews)
    fitted = preprocessing.fit(dataset.image(3))
    assert seen.label == dataset.label(3)
    assert (seen.images[0] == fitted).all()
    foggy = corrupt(fitted, "fog", 2, image_id=dataset.key(3), seed=9)
    assert (seen.images[1] == foggy).all()


def test_augmentation_depends_on_epoch_and_image_alone(tmp_path: Path) -> None:
    dataset = NpzDataset(write_data(tmp_path), "levels")
    plain = ViewLoader(Preprocessing(size=(24, 24)))
    look = dataclasses.replace(plain, augment="crop")

    def pixels(look: ViewLoader, epoch: int) -> bytes:
        seen = look(dataset, View(0, (CLEAN,), augment_epoch=epoch))
        assert isinstance(seen, LoadedViews)
        assert seen.images.shape == (1, 24, 24, 3)
        return seen.images.tobytes()

    assert pixels(look, 4) == pixels(look, 4)
    assert len({pixels(look, epoch) for epoch in range(8)}) == 8
    assert pixels(look, -1) == pixels(plain, 4)
    flips = {pixels(dataclasses.replace(plain, augment="flip"), epoch) for epoch in range(12)}
    assert len(flips) == 2


def test_store_keeps_rows_in_shards_and_repairs_a_damaged_one(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).random((SHARD_ROWS + 10, 3, 2), np.float32)
    computed: list[tuple[int, int]] = []

    def compute(start: int, stop: int) -> np.ndarray:
        computed.append((start, stop))
        return rows[start:stop]

    fill_store(tmp_path, len(rows), compute)
    wanted = np.array([SHARD_ROWS + 2, 0, SHARD_ROWS - 1, SHARD_ROWS, 0])
    assert (ArrayStore(tmp_path, len(rows)).rows(wanted) == rows[wanted]).all()
    path = shard_path(tmp_path, SHARD_ROWS)
    content = bytearray(path.read_bytes())
    content[150] ^= 1
    path.write_bytes(content)
    fill_store(tmp_path, len(rows), compute)
    assert computed == [
        (0, SHARD_ROWS),
        (SHARD_ROWS, SHARD_ROWS + 10),
        (SHARD_ROWS, SHARD_ROWS + 10),
    ]
    assert (ArrayStore(tmp_path, len(rows)).rows(wanted) == rows[wanted]).all()


def test_learning_rate_rises_to_its_peak_and_falls_to_zero() -> None:
    rates = [learning_rate(0.4, step, 100, 0.1) for step in range(101)]
    assert rates[0] == pytest.approx(0.04)
    assert max(rates) == pytest.approx(0.4)
    assert int(np.argmax(rates)) in (9, 10)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert rates[100] == pytest.approx(0, abs=1e-12)


def test_averaged_weights() -> None:
    model = VQSA(create_backbone("resnet18"), 3, VQSAConfig(codebook_size=4))
    model.backbone.requires_grad_(False)
    raw, slow = AveragedWeights(model, 0.0), AveragedWeights(model, 0.9)
    assert raw.model.backbone.conv1.weight is model.backbone.conv1.weight  # no needless copy
    first = model.head.classifier.weight.detach().clone()
    with torch.no_grad():
        model.head.classifier.weight += 1
    raw.update(model, 0)
    slow.update(model, 0)
    assert torch.equal(raw.model.head.classifier.weight, model.head.classifier.weight)
    # In step 0 the decay is (1 + 0) / (10 + 0).
    torch.testing.assert_close(slow.model.head.classifier.weight, first + 0.9)


def test_shares_of_all_processes_are_the_batch_of_one() -> None:
    alone = Order(50, 12, 3, World()).parts(7, 1)
    assert len(alone) == 3
    parts = [Order(50, 12, 3, World(rank, 5)).parts(7, 1) for rank in range(5)]
    for number, batch in enumerate(alone):
        assert (np.concatenate([part[number] for part in parts]) == batch).all()
    with pytest.raises(UsageError, match="batch_size"):
        Order(50, 4, 0, World(0, 5))


def test_tally_is_the_mean_over_types_of_the_mean_over_severities() -> None:
    tally = Tally(("fog", "snow"), 4)
    labels = torch.tensor([7, 8, 9])
    chosen = Choices(  # clean, in fog, in snow
        torch.tensor([[0, 0, 7], [8, 0, 8], [9, 9, 9]]),
        torch.tensor([[0, 0, 3], [1, 1, 1], [1, 2, 1]]),
    )
    tally.add(labels, np.array([[1, 2], [1, 3], [5, 4]]), chosen)
    result = tally.result(World(), CPU)
    assert result.clean_error == pytest.approx(1 / 3)
    assert result.corruption_errors == {"fog": 0.5, "snow": 0.0}  # fog: (2/2 + 0/1) / 2
    assert result.mean_corruption_error == 0.25
    assert result.code_agreement == pytest.approx(4 / 6)
    assert result.used_codes == 4


def test_state_file_is_never_executed(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "executed",)  # type: ignore[return-value]

    path = tmp_path / "state.pt"
    torch.save({"progress": "{}", "model": Evil()}, path)
    with pytest.raises(UsageError, match="--restart"):
        load_state(path)
    assert not (tmp_path / "executed").exists()
    assert load_state(tmp_path / "none.pt") is None


def test_every_setting_is_an_option_and_a_toml_key() -> None:
    given = train_command.make_context("train", []).params
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    assert given.keys() - fields == {"file", "restart", "as_json", "verbose", "quiet"}
    assert fields <= given.keys()
    assert {given[name] for name in fields} == {None}  # else an option would hide the file's key
    config = TrainConfig(freeze=False, image_size=64, cache=Path("x"), seen="fog,snow")
    assert parse_toml(to_toml(config), TrainConfig, "test") == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs = 0", "epochs must be at least 1"),
        ("lr = 0.0", "lr must be positive"),
        ("ema = 1.0", "ema must be"),
        ('pairing = "clean"', "set seen to 'none'"),
        ('seen = "none"', "needs corruptions"),
        ("codebook_size = 0", "codebook_size"),
        ("epoch = 3", "did you mean 'epochs'"),
    ],
)
def test_wrong_settings_are_one_line(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        parse_toml(text, TrainConfig, "run.toml")
    assert "\n" not in str(caught.value)
