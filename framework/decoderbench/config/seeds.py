"""Lists of seeds. No torch here."""

from typing import Annotated

from pydantic import AfterValidator, Field


def _refuse_invalid_seeds(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) != len(seeds):
        raise ValueError("a seed is listed twice; list each once")
    if bad := [seed for seed in seeds if not 0 <= seed < 2**63]:
        raise ValueError(f"seeds must be between 0 and 2**63 - 1, given {bad[0]}")
    return seeds


Seeds = Annotated[tuple[int, ...], Field(min_length=1), AfterValidator(_refuse_invalid_seeds)]
"""One or more seeds, each once."""
