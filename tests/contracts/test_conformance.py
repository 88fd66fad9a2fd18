"""Every registered component conforms: one test per component and rule. Further options of a component are slow."""

import io
from pathlib import Path
from typing import Any

import pytest
from helpers.support import BRIDGES, DECODERS, ENCODERS, RECTIFIERS, REGISTRY, Options
from PIL import Image

from decoderbench.registry.registry import Components
from decoderbench.testing import check_dataset, checks_of, parametrize_with_checks

KINDS = [
    (REGISTRY["rectifier"], RECTIFIERS),
    (REGISTRY["encoder"], ENCODERS),
    (REGISTRY["bridge"], BRIDGES),
    (REGISTRY["decoder"], DECODERS),
]
COMPONENTS = [(components[name].component, options) for components, cases in KINDS for name, options in cases]
FIRST = [case for number, case in enumerate(COMPONENTS) if case[0] not in [before for before, _ in COMPONENTS[:number]]]


@parametrize_with_checks(FIRST)
def test_component_conforms(check: Any) -> None:
    check()


@pytest.mark.slow
@parametrize_with_checks([case for case in COMPONENTS if case not in FIRST])
def test_component_conforms_with_other_options(check: Any) -> None:
    check()


def png(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (24, 8), shade).save(buffer, "PNG")
    return buffer.getvalue()


def folder(base: Path) -> Options:
    (base / "images").mkdir()
    for number in range(40):
        (base / "images" / f"{number:02}.png").write_bytes(png(number))
    return {"path": "images", "labels": "filename"}


def lmdb(base: Path) -> Options:
    engine = pytest.importorskip("lmdb")
    for name, count in (("train", 30), ("test", 10)):
        environment = engine.open(str(base / name), map_size=1 << 24, lock=False)
        with environment, environment.begin(write=True) as transaction:
            for number in range(1, count + 1):
                transaction.put(b"image-%09d" % number, png(number))
                transaction.put(b"label-%09d" % number, str(number).encode())
            transaction.put(b"num-samples", b"%d" % count)
    return {"train": ["train"], "test": ["test"], "val_fraction": 0.2}


def hf(base: Path) -> Options:
    datasets = pytest.importorskip("datasets")
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    splits = {
        split: datasets.Dataset.from_dict(
            {
                "image": [{"bytes": png(row), "path": None} for row in range(count)],
                "label": [str(row) for row in range(count)],
            },
            kinds,
        )
        for split, count in {"train": 20, "validation": 5, "test": 5}.items()
    }
    datasets.DatasetDict(splits).save_to_disk(base / "set")
    return {"path": "set"}


def small(base: Path) -> Options:
    return {"train": 20, "val": 5, "test": 5}


DATASETS = {
    "folder": folder,
    "lmdb": lmdb,
    "hf": hf,
    "synthetic_captcha": small,
    "rendered_words": small,
    "occluded_words": small,
}


@pytest.mark.parametrize("name", DATASETS)
def test_dataset_conforms(name: str, tmp_path: Path) -> None:
    check_dataset(REGISTRY["dataset"][name].component, tmp_path, **DATASETS[name](tmp_path))


def test_every_registered_dataset_is_checked() -> None:
    assert set(DATASETS) == set(REGISTRY["dataset"])
    assert set(REGISTRY["metric"]) == set()  # a metric of a built-in plugin must be checked here


@pytest.mark.parametrize(("components", "cases"), KINDS, ids=[components.kind for components, _ in KINDS])
def test_every_component_has_all_rules(components: Components[Any], cases: Any) -> None:
    for name, options in cases:
        checks = checks_of(components[name].component, options)
        assert len({check.name for check in checks}) == len(checks) >= 17
