"""How decoders read: their alignments, how texts end, and the room that the frames leave. No torch here."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from decoderbench.alignments import MEASURES
from decoderbench.analysis.samples import Samples
from decoderbench.specs import ctc_frames_needed

TIGHT = 1.2
"""Frames per frame that CTC needs for a label, below which an image counts as tight."""

SAME = 1e-3
"""Nats up to which the probabilities of two texts count as equal: nll and search add them in another order."""


def find_health(samples: Samples) -> pd.DataFrame:
    """Return one line per row, over its images of the test split and its seeds; NaN where a decoder says nothing.

    `index` is the position of the row, `title` its labels, `num_seeds` the seeds with predictions, `num_images` the
    images of all seeds.

    For each measure of `training.alignment_measures`, of the alignment of the returned text:

    - <measure>: median over images and seeds; <measure>_q1 and <measure>_q3: quartiles.
    - <measure>_seed_min and <measure>_seed_max: the lowest and the highest median of a seed.

    Of the texts:

    - ended: share of the texts that the decoder itself ended; the others were cut off at the largest length.
    - nll_gap: nats by which the label is less probable than the returned text, nll + text_log_prob, mean over all
      images. Both are teacher forced on their own text, so it is 0 for images that were read right: it is what reading
      freely, from own characters, costs against reading the label.
    - nll_gap_wrong: the same over the images that were read wrong.
    - search_errors: share of these whose label is more probable than the returned text: the decoder knew better, but
      its search did not find it.

    Of the frames, which CTC and `pool = "frames"` cannot do without:

    - frames: median of T over the images.
    - frames_ratio: the smallest T per frame that CTC needs for the label, over all images.
    - tight: share of the images with less than 1.2 frames per frame needed.
    """
    rows = [_health(samples, index) for index in range(len(samples.titles))]
    names = [f"{measure}{end}" for measure in MEASURES for end in ("", "_q1", "_q3", "_seed_min", "_seed_max")]
    names += ["ended", "nll_gap", "nll_gap_wrong", "search_errors", "frames", "frames_ratio", "tight"]
    counted = {"index": "int64", "title": "str", "num_seeds": "int64", "num_images": "int64"}
    dtypes = counted | dict.fromkeys(names, "float64")
    return pd.DataFrame(rows, columns=list(dtypes)).astype(dtypes)


def _health(samples: Samples, index: int) -> dict[str, Any]:
    found = [(seed, samples.frame(index, seed)) for seed in samples.seeds]
    frames = [frame.assign(seed=seed) for seed, frame in found if frame is not None]
    row = {"index": index, "title": samples.titles[index], "num_seeds": len(frames), "num_images": 0}
    if not frames:
        return row
    texts = pd.concat(frames, ignore_index=True)
    row["num_images"] = len(texts)
    planned = [cell.frames for cell in samples.cells(index) if cell.frames]
    return row | _of_alignments(texts) | _of_texts(texts) | _of_frames(texts, planned[0] if planned else None)


def _of_alignments(texts: pd.DataFrame) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for measure in (measure for measure in MEASURES if measure in texts):
        values = texts[measure].astype("float64")
        medians = values.groupby(texts["seed"]).median()
        low, middle, high = values.quantile([0.25, 0.5, 0.75])
        numbers |= {measure: middle, f"{measure}_q1": low, f"{measure}_q3": high}
        numbers |= {f"{measure}_seed_min": medians.min(), f"{measure}_seed_max": medians.max()}
    return numbers


def _of_texts(texts: pd.DataFrame) -> dict[str, float]:
    ended = texts["ended"].astype("boolean").dropna().astype("float64") if "ended" in texts else pd.Series(dtype=float)
    if "text_log_prob" not in texts:
        return {"ended": ended.mean()}
    gap = (texts["nll"].astype("float64") + texts["text_log_prob"].astype("float64")).dropna()
    wrong = gap[(texts["reference"] != texts["hypothesis"]).reindex(gap.index)]
    return {
        "ended": ended.mean(),
        "nll_gap": gap.mean(),
        "nll_gap_wrong": wrong.mean(),
        "search_errors": (wrong < -SAME).mean(),
    }


def _of_frames(texts: pd.DataFrame, planned: int | None) -> dict[str, float]:
    needed = texts.loc[texts["nll"].notna(), "reference"].map(cache(ctc_frames_needed)).astype("float64")
    if "frames" in texts:
        frames = texts["frames"].astype("float64")
    else:  # an earlier version wrote no T per image
        frames = pd.Series(math.nan if planned is None else float(planned), index=texts.index)
    ratio = (frames / needed).replace(np.inf, math.nan).dropna()  # an empty label needs no frame
    return {"frames": frames.median(), "frames_ratio": ratio.min(), "tight": (ratio < TIGHT).mean()}
