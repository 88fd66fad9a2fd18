"""Where training and transcription wait for the device: a training step nowhere, a transcription once per character.

    python benchmarks/gpu_sync.py [--device cuda] [--out FILE.jsonl] [--small]

The cells are those of quickstart, and CRNN and TRBA on the same images. After a few steps, PyTorch refuses every wait
in `Trainer.take_step`, except the uploads of lengths inside the operator of the CTC loss; the first place that waits is
reported. A wait keeps the host from launching the next kernels. On a CPU the same steps run, and nothing is noticed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from figures import Figures, parser, start
from quickstart_cells import load_cells
from recognizers import Stage, recognizers

from decoderbench.training.devices import use_ieee_float32
from decoderbench.training.trainer import Trainer

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from helpers.host_waits import place_of_wait, recording_host_waits, refusing_host_waits

GATHERING, STEP = "gathering a batch", "a training step"


def grid_of(stages: tuple[Stage, ...]) -> dict[str, Any]:
    """Return the grid of one cell with these stages."""
    kinds = zip(("rectifier", "encoder", "bridge", "decoder"), stages, strict=True)
    return {"seeds": [0]} | {kind: {"the only one": {"use": name} | options} for kind, (name, options) in kinds}


def check_that_waits_are_noticed(figures: Figures) -> None:
    """Report a planted wait: where none is noticed, every step would pass."""
    value, place = torch.ones(1, device=figures.device), None
    try:
        with refusing_host_waits(figures.device):
            bool(value)
    except RuntimeError as error:
        place = place_of_wait(error)
    figures.add("a planted wait", place or "not noticed", ok=place is not None)


def find_wait(trainer: Trainer, warm_ups: int, steps: int) -> dict[str, str | None]:
    """Take steps; return the first place that waits in each part of a step, None where there is none."""
    device, found = trainer.context.device, dict.fromkeys((GATHERING, STEP))
    batches = trainer.context.batches(warm_ups + steps)
    trainer.recognizer.train()
    for _ in range(warm_ups):
        trainer.take_step(next(batches))
    for _ in range(steps):
        part = GATHERING
        try:
            with refusing_host_waits(device):
                batch = next(batches)
            part = STEP
            with refusing_host_waits(device):
                trainer.take_step(batch)
        except RuntimeError as error:
            found[part] = place_of_wait(error)
            if found[part] is None:
                raise
            return found
    return found


def count_waits(trainer: Trainer, beam_size: int) -> tuple[list[str], int]:
    """Transcribe a batch; return the places that waited, once per wait, and the number of decoded positions."""
    dataset, model = trainer.context.dataset, trainer.recognizer.eval()
    images, _, columns = dataset.gather(dataset.rows("test")).to_float()
    with torch.inference_mode():
        model.transcribe(images, columns, beam_size=beam_size)
        with recording_host_waits(images.device) as places:
            positions = model.transcribe(images, columns, beam_size=beam_size).ids.shape[1]
    return places, positions


def measure(figures: Figures, name: str, trainer: Trainer, warm_ups: int, steps: int) -> None:
    on_cuda = figures.device.type == "cuda"
    for part, place in find_wait(trainer, warm_ups, steps).items():
        if on_cuda:
            figures.add(f"{name}: waits in {part}", place or "none", n=steps, ok=place is None)
        else:
            figures.add(f"{name}: waits in {part}", "not noticed on a CPU", n=steps)
    for beam_size in (1, 3):
        places, positions = count_waits(trainer, beam_size)
        if on_cuda:
            title = f"{name}: waits in a transcription, beam {beam_size}"
            figures.add(title, len(places) / positions, "1/position", n=positions)
            figures.add(f"{title}, places", ", ".join(sorted(set(places))) or "none")


def main() -> None:
    given = parser(__doc__).parse_args()
    figures = start("sync", given)
    use_ieee_float32()
    if figures.device.type == "cuda":
        check_that_waits_are_noticed(figures)
    width, counts = (32, (1, 1)) if given.small else (512, (3, 5))
    quickstart = load_cells(figures.device, small=given.small)
    for decoder, cell in quickstart.by_decoder.items():
        measure(figures, decoder, quickstart.trainer(cell), *counts)
    for name, stages in recognizers(width).items():
        paper = load_cells(figures.device, small=given.small, grid=grid_of(stages))
        (cell,) = paper.by_decoder.values()
        measure(figures, name, paper.trainer(cell), *counts)
    raise SystemExit(bool(figures.failed))


if __name__ == "__main__":
    main()
