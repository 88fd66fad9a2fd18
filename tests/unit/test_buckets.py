"""Images of varying width: their buckets, their padding, and how batches are drawn."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from decoderbench import ComponentConfig, Dataset, Sample
from decoderbench.data.audit import audit
from decoderbench.data.image_cache import open_store
from decoderbench.data.image_store import ImageStore, read_store
from decoderbench.data.resident_dataset import ResidentDataset
from decoderbench.data.samplers import BucketSampler
from decoderbench.data.width_buckets import WIDTH_STEP, assign_buckets, choose_widths
from decoderbench.options import ImageOptions

LARGEST = 400
many_widths = st.lists(st.integers(1, LARGEST), min_size=1, max_size=60)


@given(many_widths, st.integers(1, 12))
def test_assign_buckets_chooses_the_narrowest_bucket_that_fits(widths: list[int], buckets: int) -> None:
    chosen = choose_widths(widths, ImageOptions(height=8, width=LARGEST, resize="keep", buckets=buckets))
    assert 1 <= len(chosen) <= buckets
    assert chosen == sorted(set(chosen))
    assert all(width % WIDTH_STEP == 0 or width == LARGEST for width in chosen)
    bucket_of, index_in_bucket = assign_buckets(np.array(widths), chosen)
    for width, bucket in zip(widths, bucket_of, strict=True):
        assert width <= chosen[bucket]
        assert bucket == 0 or width > chosen[bucket - 1]
    assert sorted(zip(bucket_of, index_in_bucket, strict=True)) == [
        (bucket, index) for bucket in range(len(chosen)) for index in range((bucket_of == bucket).sum())
    ]


def test_choose_widths_gives_buckets_of_similar_size() -> None:
    widths = np.random.default_rng(0).integers(20, 380, 1000)
    chosen = choose_widths(widths.tolist(), ImageOptions(width=LARGEST, resize="keep", buckets=4))
    counts = np.bincount(assign_buckets(widths, chosen)[0])
    assert counts.min() > 200


class Stripes(Dataset):
    """Image i has size 8 x `widths[i]`; the brightness of a column is its index."""

    name = "stripes"
    Config = ComponentConfig
    widths = tuple(10 + 7 * i % 90 for i in range(40))

    def samples(self) -> Sequence[Sample]:
        return [Sample(str(i), "a", ("train", "train", "val", "test")[i % 4]) for i in range(len(self.widths))]  # type: ignore[arg-type]

    def load_image(self, index: int) -> Image.Image:
        columns = np.arange(self.widths[index], dtype=np.uint8)
        return Image.fromarray(np.broadcast_to(columns, (8, self.widths[index])).copy())

    def fingerprint(self) -> str:
        return "stripes"


def opened(tmp_path: Path, workers: int = 1, **options: int) -> ImageStore:
    dataset = Stripes(ComponentConfig(), tmp_path)
    wanted = ImageOptions(height=8, resize="keep", **{"width": 96, "buckets": 3} | options)
    return open_store(dataset, dataset.samples(), wanted, cache_dir=tmp_path / "cache", workers=workers)


@pytest.mark.parametrize("workers", [1, 2])
def test_store_keeps_widths_and_pads_with_the_last_column(tmp_path: Path, workers: int) -> None:
    store = opened(tmp_path, workers)
    assert len(store.buckets) == 3
    assert sum(len(images) for images in store.buckets) == len(Stripes.widths)
    for row, width in enumerate(Stripes.widths):
        kept = min(width, 96)
        assert store.pixels(row).shape == (1, 8, kept)
        if width <= 96:  # wider images are squeezed
            assert store.pixels(row)[0, 3].tolist() == list(range(width))
        padded = store.buckets[store.bucket_of[row]][store.index_in_bucket[row]]
        assert (padded[:, :, kept:] == padded[:, :, kept - 1 : kept]).all()
    with pytest.raises(ValueError, match="too many values"):
        store.images  # noqa: B018
    assert sorted(path.name for path in store.directory.glob("*.npy")) == [
        f"images-{bucket}.npy" for bucket in range(3)
    ]
    again = read_store(store.directory)
    assert all(np.array_equal(one, two) for one, two in zip(store.buckets, again.buckets, strict=True))


def test_corrupt_bucket_is_rebuilt(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = opened(tmp_path)
    before = [images.copy() for images in store.buckets]
    (store.directory / "images-1.npy").write_bytes(b"")
    again = opened(tmp_path)
    assert all(np.array_equal(one, two) for one, two in zip(before, again.buckets, strict=True))
    assert "and rebuilt" in caplog.text


def test_unreadable_image_is_in_the_first_bucket(tmp_path: Path) -> None:
    class Damaged(Stripes):
        def load_image(self, index: int) -> Image.Image:
            if index == 5:
                raise OSError("truncated")
            return super().load_image(index)

    dataset = Damaged(ComponentConfig(), tmp_path)
    options = ImageOptions(height=8, width=64, resize="keep", buckets=3)
    store = open_store(dataset, dataset.samples(), options, cache_dir=tmp_path, workers=1, allow_unreadable=True)
    assert set(store.unreadable) == {5}
    assert store.bucket_of[5] == 0
    assert (store.pixels(5) == 0).all()


@pytest.fixture
def batches(tmp_path: Path) -> ResidentDataset:
    store = opened(tmp_path)
    found = audit(Stripes(ComponentConfig(), tmp_path).samples(), allow=["duplicate_across_splits"])
    return ResidentDataset(store, found, torch.device("cpu"))


def test_gather_returns_the_images_of_one_bucket(batches: ResidentDataset) -> None:
    store, seen = batches.store, []
    for rows in batches.in_order(batches.rows("train"), 4):
        images, labels, columns = batches.gather(rows)
        (bucket,) = set(store.bucket_of[rows])
        assert images.shape == (len(rows), 1, 8, store.bucket_widths[bucket])
        assert labels.lengths.tolist() == [1] * len(rows)
        assert columns is not None
        assert columns.tolist() == store.widths[rows].tolist()
        for image, row in zip(images.numpy(), rows, strict=True):
            assert np.array_equal(image[:, :, : store.widths[row]], store.pixels(row))
        seen += rows.tolist()
    assert sorted(seen) == batches.rows("train").tolist()


def test_sampler_draws_from_all_buckets(batches: ResidentDataset) -> None:
    sampler = batches.sampler(4, seed=0)
    assert isinstance(sampler, BucketSampler)
    drawn = [sampler.batch(step) for step in range(60)]
    assert all(len(set(batches.store.bucket_of[rows])) == 1 and len(rows) == 4 for rows in drawn)
    assert set(np.concatenate(drawn)) == set(batches.rows("train"))


buckets_of_rows = st.lists(st.integers(1, 30), min_size=2, max_size=5).map(
    lambda sizes: [np.arange(size) + 100 * bucket for bucket, size in enumerate(sizes)]
)


@given(buckets_of_rows, st.integers(1, 8), st.integers(0, 2**40), st.lists(st.integers(0, 200), max_size=6))
def test_bucket_batch_depends_only_on_step(buckets: list[np.ndarray], size: int, seed: int, steps: list[int]) -> None:
    sampler = BucketSampler(buckets, size, seed)
    for step in steps:
        batch = sampler.batch(step)
        assert batch.shape == (size,)
        assert len({row // 100 for row in batch}) == 1
        assert np.array_equal(batch, BucketSampler(buckets, size, seed).batch(step))


@given(buckets_of_rows, st.integers(1, 8), st.integers(0, 2**40))
def test_bucket_sampler_draws_by_size_and_covers_all_rows(buckets: list[np.ndarray], size: int, seed: int) -> None:
    sampler = BucketSampler(buckets, size, seed)
    counts = [max(1, round(len(rows) / size)) for rows in buckets]
    epochs = 1 + max(-(-len(rows) // (size * count)) for rows, count in zip(buckets, counts, strict=True))
    drawn = np.concatenate([sampler.batch(step) for step in range(epochs * sum(counts))])
    assert np.bincount(drawn // 100).tolist() == [epochs * count * size for count in counts]
    assert set(drawn) == set(np.concatenate(buckets))
    for bucket, rows in enumerate(buckets):
        first = drawn[drawn // 100 == bucket][: len(rows)]
        assert sorted(first) == sorted(rows)
