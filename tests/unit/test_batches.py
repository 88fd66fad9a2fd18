"""Sampler, ResidentDataset, Labels and Augmentation: the order, the content and the pixels of resident."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from decoderbench import Charset, ComponentConfig, DataError, Dataset, Labels, Sample
from decoderbench.data.audit import audit
from decoderbench.data.augmentation import Augmentation
from decoderbench.data.image_cache import open_store
from decoderbench.data.resident_dataset import Batch, ResidentDataset, to_float
from decoderbench.data.samplers import Sampler, split_in_order
from decoderbench.options import AugmentationOptions, ImageOptions

CPU = torch.device("cpu")

# Order.

rows = st.sets(st.integers(0, 1000), min_size=1, max_size=20).map(lambda drawn: np.array(sorted(drawn)))
sizes = st.integers(1, 50)
seeds = st.integers(0, 2**40)


@given(rows, sizes, seeds)
def test_each_epoch_is_a_permutation_of_the_rows(rows: np.ndarray, size: int, seed: int) -> None:
    sampler = Sampler(rows, size, seed)
    epochs = 3
    stream = np.concatenate([sampler.batch(step) for step in range(-(-epochs * len(rows) // size))])
    for epoch in stream[: epochs * len(rows)].reshape(epochs, len(rows)):
        assert sorted(epoch) == list(rows)


@given(rows, sizes, seeds, st.lists(st.integers(0, 100), max_size=8))
def test_batch_depends_only_on_its_step(rows: np.ndarray, size: int, seed: int, steps: list[int]) -> None:
    sampler = Sampler(rows, size, seed)
    for step in steps:
        batch = sampler.batch(step)
        assert batch.shape == (size,)
        assert np.array_equal(batch, Sampler(rows, size, seed).batch(step))


def test_order_differs_between_seeds_and_epochs() -> None:
    rows = np.arange(100)
    orders = [tuple(Sampler(rows, 100, seed).batch(epoch)) for seed in range(5) for epoch in range(5)]
    assert len(set(orders)) == 25


def test_order_is_independent_of_the_batch_size() -> None:
    rows = np.arange(7)
    small, large = Sampler(rows, 2, 3), Sampler(rows, 10, 3)
    assert np.array_equal(np.concatenate([small.batch(step) for step in range(5)]), large.batch(0))


def test_split_in_order_ends_with_a_short_batch() -> None:
    assert [batch.tolist() for batch in split_in_order(np.arange(5), 2)] == [[0, 1], [2, 3], [4]]
    assert list(split_in_order(np.arange(0), 2)) == []


# Gathering.


class Plain(Dataset):
    """Image i has the brightness 10 * i, and a white spot."""

    name = "plain"
    Config = ComponentConfig
    labels = ("ab", "b", "", "aab", "x", "ba")
    splits = ("train", "train", "val", "test", "val", "train")

    def samples(self) -> Sequence[Sample]:
        pairs = zip(self.labels, self.splits, strict=True)
        return [Sample(str(row), label, split) for row, (label, split) in enumerate(pairs)]  # type: ignore[arg-type]

    def load_image(self, index: int) -> Image.Image:
        image = Image.new("L", (6, 4), 10 * index)
        image.putpixel((0, 0), 255)
        return image

    def fingerprint(self) -> str:
        return "plain"


@pytest.fixture
def resident(tmp_path: Path) -> ResidentDataset:
    dataset = Plain(ComponentConfig(), tmp_path)
    samples = dataset.samples()
    store = open_store(dataset, samples, ImageOptions(height=4, width=6), cache_dir=tmp_path, workers=1)
    found = audit(samples, charset=Charset("ab"), max_length=3, allow=["outside_charset", "empty_label"])
    return ResidentDataset(store, found.with_images(store), CPU)


@pytest.mark.parametrize("rows", [[0], [5, 1, 1, 0], [3, 2], [2], []])
def test_gather_returns_images_and_labels_of_the_rows(resident: ResidentDataset, rows: list[int]) -> None:
    images, labels, columns = resident.gather(np.array(rows, dtype=np.int64))
    assert images.dtype == torch.uint8
    assert np.array_equal(images.numpy(), resident.store.images[rows])
    texts = [Plain.labels[row] for row in rows]
    expected = Labels.from_texts(texts, Charset("ab"), max_length=3)
    assert torch.equal(labels.ids, expected.ids)
    assert torch.equal(labels.lengths, expected.lengths)
    assert labels.host_lengths == expected.host_lengths
    assert columns is None  # all images have one width


def test_label_outside_the_charset_is_empty_and_not_spellable(resident: ResidentDataset) -> None:
    assert resident.spellable.tolist() == [True, True, True, True, False, True]
    _, labels, _ = resident.gather(np.array([4, 1]))
    assert labels.lengths.tolist() == [0, 1]
    assert labels.ids.tolist() == [[0, 0, 0], [1, 0, 0]]


def test_rows_of_a_split_exclude_what_the_audit_excludes(resident: ResidentDataset) -> None:
    assert {split: resident.rows(split).tolist() for split in ("train", "val", "test")} == {
        "train": [0, 1, 5],
        "val": [2, 4],
        "test": [3],
    }


def test_changing_a_batch_changes_neither_store_nor_labels(resident: ResidentDataset) -> None:
    before = resident.store.images.copy()
    images, labels, _ = resident.gather(np.array([0, 1]))
    images += 1
    labels.ids.add_(1)
    assert np.array_equal(resident.store.images, before)
    assert resident.gather(np.array([0]))[1].ids.tolist() == [[0, 1, 0]]


# Labels.


@given(st.lists(st.text("abc", max_size=4), max_size=5), st.integers(4, 6))
def test_labels_contain_texts_and_zero_padding(texts: list[str], width: int) -> None:
    charset = Charset("abc")
    labels = Labels.from_texts(texts, charset, max_length=width)
    assert labels.ids.shape == labels.mask().shape == (len(texts), width)
    assert labels.longest == max(map(len, texts), default=0)
    assert labels.mask().sum(dim=1).tolist() == labels.lengths.tolist() == [len(text) for text in texts]
    assert labels.host_lengths == tuple(map(len, texts))
    assert not labels.ids[~labels.mask()].any()
    assert [charset.decode(ids[mask].tolist()) for ids, mask in zip(labels.ids, labels.mask(), strict=True)] == texts


def test_labels_refuse_host_lengths_of_another_batch() -> None:
    labels = Labels.from_texts(["a", "ba"], Charset("ab"))
    with pytest.raises(ValueError, match="host_lengths must repeat the 2 lengths, it has 1 items; build both from"):
        Labels(labels.ids, labels.lengths, (1,))


def test_labels_default_to_the_width_of_the_longest_text() -> None:
    assert Labels.from_texts(["a", "ba"], Charset("ab")).ids.tolist() == [[0, 0], [1, 0]]
    assert Labels.from_texts(["", ""], Charset("ab")).ids.shape == (2, 0)


def test_labels_refuse_too_long_texts_and_foreign_characters() -> None:
    with pytest.raises(DataError, match="a label has 3 characters, max_length is 2"):
        Labels.from_texts(["aab"], Charset("ab"), max_length=2)
    with pytest.raises(DataError, match=r"'abc' has characters outside the charset: 'c' \(U\+0063\)"):
        Labels.from_texts(["abc"], Charset("ab"))


# Augmentation.

EVERYTHING: dict[str, Any] = {
    "rotate": 9,
    "shear": 0.2,
    "scale": 0.2,
    "translate": 0.1,
    "contrast": 0.3,
    "brightness": 0.2,
    "noise": 0.1,
}


def without_labels(images: Tensor, columns: Tensor | None = None) -> Batch:
    return Batch(images, Labels.from_texts([""] * len(images), Charset("a")), columns)


def augmentation(*, seed: int = 0, **options: Any) -> Callable[[Tensor, int], Tensor]:
    changed = Augmentation(AugmentationOptions(**options), seed, CPU)
    return lambda images, step: changed(without_labels(images), step).images


def noise_images(batch: int = 4, *, height: int = 16, width: int = 48) -> Tensor:
    drawn = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, 1, height, width), generator=drawn, dtype=torch.uint8)


def test_augmentation_without_options_only_converts_to_float() -> None:
    every_value = torch.arange(256, dtype=torch.uint8).view(1, 1, 8, 32)
    for converted in (augmentation()(every_value, 0), to_float(every_value)):
        assert converted.dtype == torch.float32
        assert torch.allclose(converted.flatten(), torch.linspace(-1, 1, 256), atol=1e-6)


@pytest.mark.parametrize("option", EVERYTHING)
def test_augmented_pixels_depend_only_on_seed_and_step(option: str) -> None:
    images, chosen = noise_images(), {option: EVERYTHING[option]}
    changed = augmentation(seed=1, **chosen)
    at_three = changed(images, 3)
    assert not torch.equal(at_three, to_float(images))
    assert not torch.equal(changed(images, 4), at_three)
    assert torch.equal(changed(images, 3), at_three)
    assert torch.equal(augmentation(seed=1, **chosen)(images, 3), at_three)
    assert not torch.equal(augmentation(seed=2, **chosen)(images, 3), at_three)


@pytest.mark.parametrize("option", EVERYTHING)
def test_each_image_of_a_batch_is_augmented_differently(option: str) -> None:
    same = noise_images(1).expand(5, -1, -1, -1)
    changed = augmentation(**{option: EVERYTHING[option]})(same, 0)
    assert len({tuple(image.flatten().tolist()) for image in changed}) == 5


def test_augmentation_changes_neither_its_input_nor_the_global_generator() -> None:
    images, before = noise_images(), torch.get_rng_state()
    augmentation(**EVERYTHING)(images, 0)
    assert torch.equal(images, noise_images())
    assert torch.equal(before, torch.get_rng_state())


def test_all_augmentations_together_stay_finite_and_bounded() -> None:
    changed = augmentation(**EVERYTHING)(noise_images(64), 0)
    assert changed.shape == (64, 1, 16, 48)
    assert changed.isfinite().all()
    assert changed.abs().max() < 1 + 2 * 0.3 + 2 * 0.2 + 6 * 2 * 0.1
    assert changed.abs().max() > 1


@pytest.mark.parametrize(("option", "largest"), [("brightness", 0.2), ("contrast", 0.3)])
def test_brightness_and_contrast_stay_within_their_bounds(option: str, largest: float) -> None:
    images = noise_images(200)
    before, after = to_float(images), augmentation(**{option: largest})(images, 0)
    if option == "brightness":
        change = (after - before).mean(dim=(1, 2, 3)) / 2
    else:
        change = after.std(dim=(1, 2, 3)) / before.std(dim=(1, 2, 3)) - 1
        assert torch.allclose(after.mean(dim=(1, 2, 3)), before.mean(dim=(1, 2, 3)), atol=1e-5)
    assert change.abs().max() <= largest + 1e-4
    assert change.max() > 0.9 * largest
    assert change.min() < -0.9 * largest


def test_noise_deviation_is_drawn_up_to_its_option() -> None:
    gray = torch.full((200, 1, 16, 48), 128, dtype=torch.uint8)
    deviation = augmentation(noise=0.1)(gray, 0).std(dim=(1, 2, 3)) / 2
    assert 0.09 < deviation.max() < 0.11
    assert deviation.min() < 0.01


class Extreme(Augmentation):
    """Always draws the largest value."""

    def __init__(self, **options: float) -> None:
        super().__init__(AugmentationOptions(**options), 0, CPU)

    def _draw(self, largest: float, images: Tensor) -> Tensor:
        return torch.full((len(images),), largest)


def close(actual: Tensor, expected: Tensor) -> bool:
    return torch.allclose(actual, expected, atol=1e-3)


def test_translate_is_a_fraction_of_the_height_on_both_axes() -> None:
    images = noise_images(height=8, width=24)
    moved, before = Extreme(translate=0.25)(without_labels(images), 0).images, to_float(images)
    assert close(moved[..., :-2, :-2], before[..., 2:, 2:])
    assert close(moved[..., -2:, :-2], before[..., -1:, 2:].expand(-1, -1, 2, -1))  # the edge, repeated


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"translate": 0.25}, [8, 22, 1]), ({"scale": 0.5}, [11, 20, 5]), ({"noise": 0.1}, [10, 24, 2])],
    ids=["moved to the left", "shrunk about the middle", "not moved"],
)
def test_columns_of_padded_images_follow_their_right_edge(options: dict[str, float], expected: list[int]) -> None:
    images = noise_images(3, height=8, width=24)
    changed = Extreme(**options)(without_labels(images, torch.tensor([10, 24, 2])), 0)
    assert changed.columns is not None
    assert changed.columns.tolist() == expected


def test_rotate_by_90_degrees_turns_the_middle_of_a_wide_image() -> None:
    images = noise_images(height=8, width=24)
    turned, before = Extreme(rotate=90)(without_labels(images), 0).images, to_float(images)
    assert close(turned[..., 8:16], before[..., 8:16].rot90(1, dims=(2, 3)))


@pytest.mark.parametrize("degrees", [10, 45, 160])
def test_rotate_preserves_distances_in_a_wide_image(degrees: float) -> None:
    height, width = 33, 99
    down, right = torch.meshgrid(torch.arange(height) - 16.0, torch.arange(width) - 49.0, indexing="ij")

    def spot(y: float, x: float) -> Tensor:
        return (255 * torch.exp(-((down - y) ** 2 + (right - x) ** 2) / 8)).to(torch.uint8)[None, None]

    for y, x in [(0, 10), (-10, 0), (6, 6)]:
        light = Extreme(rotate=degrees)(without_labels(spot(y, x)), 0).images[0, 0] + 1
        found = torch.stack([(light * down).sum(), (light * right).sum()]) / light.sum()
        angle = torch.tensor(torch.pi * degrees / 180)
        expected = torch.stack([angle.cos() * y - angle.sin() * x, angle.sin() * y + angle.cos() * x])
        assert torch.allclose(found, expected, atol=0.1)


def test_shear_moves_each_row_by_its_distance_from_the_middle() -> None:
    images = noise_images(height=9, width=25)
    sheared, before = Extreme(shear=1)(without_labels(images), 0).images, to_float(images)
    for row in range(9):
        assert close(sheared[..., row, 4:21], before[..., row, row : row + 17])


def test_scale_is_about_the_middle() -> None:
    images = noise_images(height=9, width=25)
    scaled, before = Extreme(scale=0.5)(without_labels(images), 0).images, to_float(images)
    assert close(scaled[..., 2:7:2, 6:19:2], before[..., 1:8:3, 3:22:3])
