"""Every text that was read on the test split, as one frame over all rows and seeds. No torch here."""

from __future__ import annotations

import pandas as pd

from decoderbench.analysis.samples import Samples

COLUMNS = {
    "index": "int64",
    "seed": "int64",
    "image_set": "int64",
    "image": "int64",
    "sample": "str",
    "reference": "str",
    "hypothesis": "str",
    "text_log_prob": "float64",
}


def readings_of(samples: Samples) -> pd.DataFrame:
    """Return one line per row, seed and image of the test split.

    `index` is the position of the row in `Analysis.rows`. `image` numbers the images of an `image_set` from 0, so that
    lines of one image set and image are about the same image. `text_log_prob`, in nats, is missing where the decoder
    cannot score the text, and in files of earlier versions.
    """
    parts = []
    for index, image_set in enumerate(samples.image_sets):
        for seed in samples.seeds:
            frame = samples.frame(index, seed)
            if frame is not None:
                scores = frame["text_log_prob"].astype("float64") if "text_log_prob" in frame else float("nan")
                place = {"index": index, "seed": seed, "image_set": image_set, "image": range(len(frame))}
                parts.append(frame[["sample", "reference", "hypothesis"]].assign(**place, text_log_prob=scores))
    together = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    return together.reindex(columns=list(COLUMNS)).astype(COLUMNS)
