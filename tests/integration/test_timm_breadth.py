"""plugins/TIMM.md, the table of timm's CNNs: each row is correct, and every model of timm has one."""

import importlib
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm

from decoderbench_plugins.encoders.timm_cnn import TimmCNN

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CHEAP = [
    "test_resnet",  # plain strides
    "convnext_atto",  # its first stage reduces by 4
    "tresnet_m",  # space to depth, blur pools, no map of stage 0
    "twins_svt_small",  # tokens, a hybrid
    "maxvit_tiny_tf_224",  # cannot read the images
    "test_vit",  # neither CNN nor hybrid
]


@pytest.fixture(scope="module")
def table() -> Iterator[Any]:
    """The module that writes the table, also importable by the processes that it starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield importlib.import_module("timm_table")


@pytest.fixture(scope="module")
def committed(table: Any) -> dict[str, Any]:
    return {entry.name: entry for entry in table.read_page(table.PAGE.read_text())}


def facts(entry: Any) -> tuple[Any, ...]:
    """Return all fields of a row; of the reason only whether there is one, because torch words it."""
    return (*(getattr(entry, name) for name in entry.__dataclass_fields__ if name != "reason"), bool(entry.reason))


def test_summary_adds_up(table: Any, committed: dict[str, Any]) -> None:
    listed = [entry for entry in committed.values() if entry.kind != "other"]
    text = table.PAGE.read_text()
    printed = re.findall(r"^\| (\w+) \| (CNN|hybrid) \| (\d+) \| (\d+) \|", text, re.MULTILINE)
    for kind in ("CNN", "hybrid"):
        of_kind = [entry for entry in listed if entry.kind == kind]
        assert ("all", kind, str(len(of_kind)), str(sum(entry.usable for entry in of_kind))) in printed
        for column in (2, 3):
            total, *families = [int(line[column]) for line in printed if line[1] == kind]
            assert total == sum(families)
    assert len(text) < 500_000
    assert table.read_page(table.format_page(list(committed.values()))) == sorted(committed.values(), key=facts)


def test_at_least_99_percent_of_cnns_are_usable(committed: dict[str, Any]) -> None:
    usable = [entry.columns >= 24 for entry in committed.values() if entry.kind == "CNN"]
    assert len(usable) > 700
    assert sum(usable) >= 0.99 * len(usable)
    assert all(entry.usable != bool(entry.reason) for entry in committed.values() if entry.kind != "other")


@pytest.mark.parametrize("name", CHEAP)
def test_committed_row_of_a_cheap_model_is_correct(table: Any, committed: dict[str, Any], name: str) -> None:
    assert facts(table.build_row(name)) == facts(committed[name])


def test_useful_stage_is_the_deepest_reduced_by_at_most_8(table: Any) -> None:
    assert table.useful_stage([2, 4, 8, 16, 32]) == 2
    assert table.useful_stage([4, 8, 16, 32]) == 1
    assert table.useful_stage([8, 8, 16]) == 1
    assert table.useful_stage([16, 16, 16]) == 0


def test_map_of_another_size_than_declared_is_detected(table: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    right = TimmCNN.forward
    monkeypatch.setattr(
        TimmCNN, "forward", lambda self, images: right(self, images)[..., 1:] if self.training else right(self, images)
    )
    with pytest.raises(AssertionError, match=r"torch\.Size"):
        table.build_row("test_resnet")


@pytest.mark.parametrize("share", [pytest.param(0.2, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.chaos)])
def test_committed_row_of_every_model_is_correct(table: Any, committed: dict[str, Any], share: float) -> None:
    """Run the models of all families, or of others each time; `build_row` checks their maps against the declared sizes,
    with and without `keep_width`.

    To save time, only one model of kind "other" is built per family.
    """
    others = [entry for entry in committed.values() if entry.kind == "other"]
    skipped = {entry.name for entry in others} - {
        entry.name for entry in {entry.family: entry for entry in others}.values()
    }
    families = sorted({entry.family for entry in committed.values()})
    left_out = set(random.sample(families, round((1 - share) * len(families))))
    skipped |= {entry.name for entry in committed.values() if entry.family in left_out}
    found = table.build_rows(name for name in timm.list_models() if name not in skipped)
    assert [facts(entry) for entry in found if entry.name in committed] == [
        facts(committed[entry.name]) for entry in found if entry.name in committed
    ]
    assert not [entry for entry in found if entry.kind != "other" and not entry.usable and not entry.reason]
    if share == 1:  # few unusable models can come together in a sample
        usable = [entry.usable for entry in found if entry.kind == "CNN"]
        assert sum(usable) >= 0.99 * len(usable)


@pytest.mark.slow
def test_smallest_usable_model_of_every_family_computes_the_listed_map(table: Any, committed: dict[str, Any]) -> None:
    members = table.smallest_usable(entry for entry in committed.values() if timm.is_model(entry.name))
    assert len(members) > 60
    for entry in members:
        features = table.compute(entry)
        channels, height, _ = map(int, entry.plain.split("x"))
        assert features.shape == (2, channels, height, entry.columns), entry.name
        assert features.isfinite().all(), entry.name
        assert features.std(dim=-1).max() > 0, f"{entry.name}: all columns of its map are equal"
