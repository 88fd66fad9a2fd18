"""The page that a run leaves: with the images of its data, their readings and alignments."""

from pathlib import Path

import pandas as pd
import pytest
from helpers.experiments import micro_experiment
from helpers.pages import Page

from decoderbench import Experiment, run
from decoderbench.analysis.kept_images import IMAGES
from decoderbench.registry.registry import Registry
from decoderbench.report import write_report


def test_run_keeps_the_images_of_its_page_and_a_report_shows_them_again(
    tiny_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("decoderbench.report.draw_figures", lambda analysis: {})
    micro = micro_experiment(train=8, val=4, steps=60)
    micro["training"] |= {"learning_rate": 0.03, "warmup_steps": 0}  # enough to read something
    micro["grid"]["decoder"] = {"attention": {"use": "attention_lstm", "hidden_dim": 8}, "ctc": "ctc"}
    experiment = Experiment(**micro)
    run(experiment, results=tmp_path / "micro", device="cpu", registry=tiny_registry)
    kept = pd.read_parquet(tmp_path / "micro" / IMAGES)
    assert kept["split"].value_counts().to_dict() == {"train": 8, "test": 4}
    written = (tmp_path / "micro" / "report.html").read_text(encoding="utf-8")
    page = Page(written)
    assert len(page.values("img", "src")) == 12
    assert "image not kept here" not in page.text
    looks = [attrs for tag, attrs in page.elements if tag == "svg" and ("class", "look") in attrs]
    assert looks
    write_report(tmp_path / "micro", command="decoderbench report micro")
    again = Page((tmp_path / "micro" / "report.html").read_text(encoding="utf-8"))
    assert again.values("img", "src") == page.values("img", "src")
