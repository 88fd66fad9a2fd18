"""What the settings of a training say about its result before anything is trained. No torch here."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from decoderbench.data.dataset import SPLITS, Split
from decoderbench.options import TrainingOptions

LONG_WARMUP = 0.5
"""The fraction of all steps from which a warm-up is noted."""
SMALL_MOVE = 0.01
"""Weights that cannot change by more than this stay near their random start."""
FEW_SAMPLES = 20
"""The number of samples below which a split is noted: one sample is then at least five points of exact match."""


def learning_notes(training: TrainingOptions, split_sizes: Mapping[Split, int]) -> list[str]:
    """Return sentences on settings with which a cell cannot learn, or cannot show it, by the built-in trainer.

    `split_sizes` are the numbers of samples in train, val and test; those that are not known are not judged.
    """
    steps, warmup = training.steps, training.warmup_steps
    notes = []
    if steps <= warmup:
        reached = training.learning_rate * steps / (warmup + 1)
        notes.append(
            f"all {steps:,} steps are in the warm-up of {warmup:,} steps, so the learning rate ends at {reached:.3g} "
            f"instead of rising to {training.learning_rate:g}; set training.steps higher or training.warmup_steps lower"
        )
    elif warmup >= LONG_WARMUP * steps:
        notes.append(
            f"{warmup:,} of {steps:,} steps are warm-up; set training.steps higher or training.warmup_steps lower"
        )
    if steps > warmup and (move := _largest_move(training)) < SMALL_MOVE:
        notes.append(
            f"no weight can change by more than about {move:.2g} in {steps:,} steps of AdamW, the sum of the learning "
            f"rates; set training.learning_rate or training.steps higher"
        )
    if (decay := training.learning_rate * training.weight_decay) >= 1:
        notes.append(
            f"weight decay erases the weights: learning_rate x weight_decay is {decay:g} at the peak, and must be far "
            f"below 1; set training.weight_decay lower"
        )
    if 0 < (num_train := split_sizes.get("train", 0)) < training.batch_size:
        notes.append(
            f"a batch of {training.batch_size:,} images holds each of the {num_train:,} training images "
            f"{training.batch_size / num_train:.1f} times on average; set training.batch_size lower"
        )
    for split in SPLITS[1:]:
        if 0 < (size := split_sizes.get(split, 0)) < FEW_SAMPLES:
            use = "weights are chosen by it" if split == "val" else "all scores are measured on it"
            notes.append(
                f"{split} has {size} samples, so one of them is {100 / size:.0f} points of exact match, and {use}"
            )
    return notes


def name_settings(notes: Iterable[tuple[str, Sequence[str]]], settings: Collection[str]) -> list[str]:
    """Return each note once, with the settings that it is about unless it is about all.

    Args:
        notes: labels of settings, and the notes on each.
        settings: the labels of all settings.
    """
    about: dict[str, dict[str, None]] = {}
    for setting, sentences in notes:
        for sentence in sentences:
            about.setdefault(sentence, {})[setting] = None
    return [
        note if about[note].keys() == set(settings) else f"{note} (setting {', '.join(about[note])})" for note in about
    ]


def _largest_move(training: TrainingOptions) -> float:
    """Return the sum of the learning rates of all steps, in which AdamW changes a weight by about the rate at most."""
    rising = training.warmup_steps / 2
    falling = (training.steps - training.warmup_steps + 1) / 2
    return training.learning_rate * (rising + falling)
