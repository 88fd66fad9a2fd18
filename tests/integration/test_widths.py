"""Images of varying width: planned for the T of every bucket, trained, and refused where T is too small."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.training import train
from PIL import Image

from decoderbench import DataError, Experiment
from decoderbench.planning.prepare import prepare
from decoderbench.registry.registry import Registry

GLYPH = 12  # columns per character


@pytest.fixture
def lines(tiny: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """The tiny experiment on 60 lines of 1 to 6 bars: bright ones are `a`, dark ones `b`."""
    folder = tmp_path / "lines"
    folder.mkdir()
    generator = np.random.default_rng(0)
    rows = ["filename,label"]
    for number in range(60):
        label = "".join(generator.choice(["a", "b"], 1 + number % 6))
        pixels = np.repeat([200 if character == "a" else 50 for character in label], GLYPH).astype(np.uint8)
        pixels = np.broadcast_to(pixels, (16, len(pixels))) + generator.integers(0, 40, (16, len(pixels)))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
        rows.append(f"{number}.png,{label}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    tiny["dataset"] = {"use": "folder", "path": str(folder), "fractions": [0.6, 0.2, 0.2]}
    tiny["image"] = {"height": 16, "width": 80, "resize": "keep", "buckets": 3}
    return tiny


def trained(experiment: dict[str, Any], registry: Registry, tmp_path: Path) -> pd.DataFrame:
    return train(experiment, registry, tmp_path / "results", report=True)


def test_images_of_varying_width_are_trained_and_scored(
    lines: dict[str, Any], tiny_registry: Registry, tmp_path: Path
) -> None:
    lines["grid"]["decoder"]["flattened"] = {"use": "lstm_cell", "pool": "flatten"}
    frame = trained(lines, tiny_registry, tmp_path).set_index("decoder")
    assert frame["status"].to_dict() == {
        "loop": "done", "ctc": "done", "attention": "done", "flattened": "infeasible",
    }  # fmt: skip
    assert "reads one width only" in frame.loc["flattened", "reason"]
    assert set(frame["frames"]) == {20}
    page = (tmp_path / "results" / "report.md").read_text()
    assert "squeezed to image.width" not in page
    done = frame[frame["status"] == "done"]
    assert set(done["num_test"]) == {12}
    predictions = [
        pd.read_parquet(tmp_path / "results" / "cells" / cell_id / "predictions.parquet") for cell_id in done["cell_id"]
    ]
    assert all(table["sample"].nunique() == 12 for table in predictions)
    assert all(table["sample"].equals(predictions[0]["sample"]) for table in predictions)
    assert "Widths vary: images keep their aspect ratio" in page


def test_frames_and_gmacs_are_those_of_the_widest_image(lines: dict[str, Any], tiny_registry: Registry) -> None:
    sizes = []
    for width in (80, 4000):
        lines["image"]["width"] = width
        cells = prepare(Experiment(**lines), registry=tiny_registry).cells
        sizes.append([(cell.frames, cell.gmacs) for cell in cells])
    assert sizes[0] == sizes[1]
    assert all(frames == 20 and gmacs for frames, gmacs in sizes[0])


def test_report_counts_squeezed_images(lines: dict[str, Any], tiny_registry: Registry, tmp_path: Path) -> None:
    lines["image"]["width"] = 4 * GLYPH
    lines["grid"]["decoder"] = {"attention": lines["grid"]["decoder"]["attention"]}
    trained(lines, tiny_registry, tmp_path)
    page = (tmp_path / "results" / "report.md").read_text()
    assert "aspect ratio: 20 of 60 images, such as '10.png'" in page


def test_ctc_is_checked_against_the_frames_of_each_bucket(
    lines: dict[str, Any], tiny_registry: Registry, tmp_path: Path
) -> None:
    # Stride 8 gives 10 frames for the widest image, enough for any label, but 8 for this one, whose label needs 9.
    file = Path(lines["dataset"]["path"]) / "labels.csv"
    image = Image.new("L", (5 * GLYPH, 16), 200)
    image.paste(0, (0, 0, GLYPH, 8))
    image.save(file.parent / "repeats.png")
    file.write_text(file.read_text() + "repeats.png,aaaaa\n")
    lines["grid"]["encoder"] = {"coarse": {"use": "tiny_cnn", "stride": 8}}
    frame = trained(lines, tiny_registry, tmp_path).set_index("decoder")
    assert frame.loc["ctc", "status"] == "infeasible"
    assert "CTC needs T >= 9" in frame.loc["ctc", "reason"]
    assert "this memory has T = 8" in frame.loc["ctc", "reason"]
    assert "(at images 64 wide)" in frame.loc["ctc", "reason"]
    assert set(frame.loc[["loop", "attention"], "status"]) == {"done"}


def test_image_with_fewer_columns_than_characters_is_refused(
    lines: dict[str, Any], tiny_registry: Registry, tmp_path: Path
) -> None:
    file = Path(lines["dataset"]["path"]) / "labels.csv"
    image = Image.new("L", (20, 400))
    image.paste(255, (0, 0, 20, 200))
    image.save(file.parent / "tall.png")
    file.write_text(file.read_text() + "tall.png,ababab\n")
    with pytest.raises(
        DataError, match=r"(?s)too_narrow: 'tall.png' is 1 column wide.*6 characters.*--allow too_narrow"
    ):
        trained(lines, tiny_registry, tmp_path)
    lines["allow"] = ["too_narrow"]
    frame = trained(lines, tiny_registry, tmp_path)
    assert set(frame["status"]) == {"done"}
    assert "too_narrow: allowed, in 1 of 61 samples" in (tmp_path / "results" / "report.md").read_text()
    plan = json.loads((tmp_path / "results" / "plan.json").read_text())
    assert plan["cells"][0]["labels"]["max_length"] == 6
