"""What each decoder costs, relative to `ctc` on the same encoder and images: training steps, transcription, memory.

    python benchmarks/decoders.py [--rounds 9] [--only LABEL ...] [--device cpu] [--out FILE.jsonl] [--small]

Images, encoder and batch size are those of quickstart. Decoders that need a feature map read it directly, all others
behind quickstart's bridge. A time is that of the whole recognizer. In each round every decoder takes some training
steps and transcribes a batch greedily, one after the other; the figure is the median over the rounds of its time
divided by that of `ctc` in the same round. After so few steps texts are arbitrary; they have at most 4 characters.
Memory is the peak of one call, without weights and optimizer.

Two more parts measure what the decoders promise. Cached `nrtr`: 40 characters by `step`, which keeps keys and values,
and by the whole prefix again for each character; texts must be equal. Goal: at least 5 times as fast. The loss of a
transducer: one training step on 16 lines of 250 frames and 60 characters, 108 classes, 256 wide. Goal: below 600 MB.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any

import torch
from figures import Figures, parser, seconds, start
from peak_memory import peak_mb
from quickstart_cells import QUICKSTART, installed_components, load_cells
from torch import Tensor, nn

from decoderbench import AutoregressiveDecoder, Charset, Labels, LabelSpec, Memory, SequenceSpec, transducer_nll
from decoderbench.config.experiment import load_experiment
from decoderbench.training.devices import use_ieee_float32
from decoderbench.training.trainer import Trainer

REFERENCE = "ctc"
SEQUENCE, MAP = "sequence", "map"
CHARACTERS = 40
CHARSET = Charset(string.digits + string.ascii_lowercase)


@dataclass(frozen=True)
class Row:
    """A decoder to measure: its label, its name, its options, and the bridge before it."""

    label: str
    use: str
    options: dict[str, Any] = field(default_factory=dict)
    bridge: str = SEQUENCE


ROWS = [
    Row(REFERENCE, "ctc"),
    Row("LSTM + CTC", "lstm_ctc"),
    Row(
        "LSTM + CTC, self-conditioned",
        "lstm_ctc",
        {"num_layers": 2, "intermediate_weight": 0.5, "self_conditioned": True},
    ),
    Row("LSTMCell loop", "lstm_cell", {"pool": "flatten"}),
    Row("nn.LSTM", "lstm_unrolled", {"pool": "flatten"}),
    Row("attention", "attention_lstm"),
    Row("location attention", "attention_lstm", {"attention": "location", "positions": "sinusoidal"}),
    Row("GMM attention", "attention_lstm", {"attention": "gmm"}),
    Row("monotonic attention", "attention_lstm", {"attention": "monotonic"}),
    Row("hybrid, read by CTC", "hybrid", {"read": "main"}),
    Row("hybrid, read by attention", "hybrid", {"read": "guide"}),
    Row("hybrid, read jointly", "hybrid", {"read": "joint"}),
    Row("GTC", "guided_ctc"),
    Row("NRTR", "nrtr"),
    Row("PARSeq, AR", "parseq", {"refinements": 0}),
    Row("PARSeq, AR, refined", "parseq"),
    Row("PARSeq, NAR", "parseq", {"read": "nar", "refinements": 0}),
    Row("per position", "per_position"),
    Row("PVAM", "position_attention"),
    Row("A3", "position_attention", {"attention": "a3"}),
    Row("transducer", "rnn_transducer"),
    Row("LISTER", "lister"),
    Row("LISTER, map", "lister", bridge=MAP),
    Row("SAR, map", "sar", bridge=MAP),
]


class Subject:
    """A recognizer that trains on one batch again and again, and transcribes it."""

    def __init__(self, trainer: Trainer, steps: int) -> None:
        self.trainer, self.steps = trainer, steps
        (self.batch,) = trainer.context.batches(1)

    def train(self) -> None:
        self.trainer.recognizer.train()
        for _ in range(self.steps):
            self.trainer.take_step(self.batch)

    def transcribe(self) -> None:
        with torch.inference_mode():
            self.trainer.recognizer.eval().transcribe(self.batch.images, self.batch.columns)


def build_subjects(figures: Figures, rows: Sequence[Row], steps: int, *, small: bool) -> dict[str, Subject]:
    """Build a recognizer for each row; state the rows that cannot be built, and decoders without a row."""
    registered = set(installed_components()["decoder"])
    if len(rows) == len(ROWS):
        missing = sorted(registered - {row.use for row in ROWS})
        figures.add("decoders without a row", ", ".join(missing) or "none", ok=not missing)
    known = [row for row in rows if row.use in registered]
    grid = load_experiment(QUICKSTART).as_given()["grid"]
    bridges = {SEQUENCE: next(iter(grid["bridge"].values())), MAP: {"use": "feature_map"}}
    bridges = {name: bridges[name] for name in dict.fromkeys(row.bridge for row in known)}
    cells = load_cells(
        figures.device,
        small=small,
        grid={
            "seeds": [0],
            "encoder": dict([next(iter(grid["encoder"].items()))]),
            "bridge": bridges,
            "decoder": {row.label: {"use": row.use} | row.options for row in known},
            "exclude": [
                {"bridge": bridge, "decoder": row.label} for row in known for bridge in bridges if bridge != row.bridge
            ],
        },
    )
    for row in rows:
        if row.label not in cells.by_decoder:
            figures.add(f"{row.label}: skipped", "infeasible" if row in known else f"{row.use} is not registered")
    return {label: Subject(cells.trainer(cell), steps) for label, cell in cells.by_decoder.items()}


def compare(figures: Figures, subjects: dict[str, Subject], rounds: int) -> None:
    """Report the times of all subjects, and their ratios to the reference in the same round."""
    device = figures.device
    for what, unit in (("training", "ms/step"), ("transcription", "ms/batch")):
        loops: dict[str, Callable[[], None]] = {
            label: subject.train if what == "training" else subject.transcribe for label, subject in subjects.items()
        }
        for loop in loops.values():
            loop()
        times = [{label: seconds(device, loop) for label, loop in loops.items()} for _ in range(rounds)]
        for label, subject in subjects.items():
            scale = 1e3 / (subject.steps if what == "training" else 1)
            figures.add(f"{label}: {what}", scale * median(took[label] for took in times), unit, n=rounds)
            if label == REFERENCE:
                continue
            ratios = [took[label] / took[REFERENCE] for took in times]
            spread = (max(ratios) - min(ratios)) / 2
            figures.add(f"{label}: {what} / {REFERENCE}", median(ratios), "1", n=rounds, spread=spread)
    for label, subject in subjects.items():
        subject.steps = 1
        figures.add(f"{label}: training, peak memory", peak_mb(device, subject.train), "MB")
        figures.add(f"{label}: transcription, peak memory", peak_mb(device, subject.transcribe), "MB")


def write_by_step(decoder: AutoregressiveDecoder, memory: Memory, characters: int) -> Tensor:
    """Return the most probable characters one after the other, none of which is the end, (B, characters)."""
    token = torch.full((memory.batch,), decoder.start, device=memory.device)
    state, text = decoder.initial_state(memory), list[Tensor]()
    for _ in range(characters):
        logits, state = decoder.step(token, state, memory)
        token = logits[:, : decoder.end].argmax(dim=1)
        text.append(token)
    return torch.stack(text, dim=1)


def write_again(decoder: AutoregressiveDecoder, memory: Memory, characters: int) -> Tensor:
    """Return the same, with all characters so far read again for each further one."""
    tokens = torch.full((memory.batch, 1), decoder.start, device=memory.device)
    for _ in range(characters):
        logits = decoder.teacher_forced_logits(memory, tokens)[:, -1]
        tokens = torch.cat([tokens, logits[:, : decoder.end].argmax(dim=1, keepdim=True)], dim=1)
    return tokens[:, 1:]


def measure_cache(figures: Figures, rounds: int, *, small: bool) -> None:
    """Report how much faster `nrtr` writes with kept keys and values."""
    components, device = installed_components()["decoder"], figures.device
    if "nrtr" not in components:
        figures.add("cached NRTR: skipped", "nrtr is not registered")
        return
    batch, frames, dim, characters = (2, 8, 32, 5) if small else (16, 64, 256, CHARACTERS)
    spec, labels = (
        SequenceSpec(length=frames, dim=dim, left_to_right=True),
        LabelSpec(charset=CHARSET, max_length=characters),
    )
    nrtr = components["nrtr"].component
    torch.manual_seed(0)
    decoder = nrtr(nrtr.Config(), spec, labels).to(device).eval()
    memory = Memory.of(torch.randn(batch, frames, dim, device=device))
    with torch.inference_mode():
        loops = [partial(write, decoder, memory, characters) for write in (write_by_step, write_again)]
        one, other = (loop() for loop in loops)
        times = [[seconds(device, loop) for loop in loops] for _ in range(rounds)]
    name = f"cached NRTR, {characters} characters"
    figures.add(f"{name}: texts that differ", int((one != other).any(dim=1).sum()), n=batch, ok=torch.equal(one, other))
    cached, uncached = (median(column) for column in zip(*times, strict=True))
    figures.add(f"{name}: cached", 1e3 * cached, "ms/batch", n=rounds)
    figures.add(f"{name}: uncached", 1e3 * uncached, "ms/batch", n=rounds)
    ratio = median(again / kept for kept, again in times)
    figures.add(f"{name}: uncached / cached", ratio, "1", n=rounds, ok=None if small else ratio >= 5)


def measure_transducer(figures: Figures, *, small: bool) -> None:
    """Report time and memory of the loss of a transducer on long lines."""
    batch, frames, characters, classes, width = (2, 20, 6, 9, 8) if small else (16, 250, 60, 108, 256)
    device = figures.device
    torch.manual_seed(0)
    ids = torch.randint(classes - 1, (batch, characters), device=device)
    labels = Labels(ids, torch.full((batch,), characters, device=device), (characters,) * batch)
    projected = torch.randn(batch, frames, width, device=device, requires_grad=True)
    text = torch.randn(batch, characters + 1, width, device=device, requires_grad=True)
    valid, head = torch.ones(batch, frames, dtype=torch.bool, device=device), nn.Linear(width, classes).to(device)

    def step() -> None:
        torch.autograd.backward(transducer_nll(projected, text, labels, valid, head).sum())

    step()
    name = f"transducer loss, B {batch} T {frames} U {characters} V {classes}, width {width}"
    logits = 4e-6 * batch * frames * (characters + 1) * classes
    figures.add(f"{name}: forward and backward", 1e3 * seconds(device, step), "ms")
    figures.add(f"{name}: all logits at once would be", logits, "MB")
    peak = peak_mb(device, step)
    figures.add(f"{name}: peak memory", peak, "MB", ok=peak < 600)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--rounds", type=int, default=9)
    labels = [row.label for row in ROWS]
    arguments.add_argument("--only", nargs="+", choices=labels, default=labels, help=f"besides {REFERENCE}")
    given = arguments.parse_args()
    figures = start("decoders", given)
    use_ieee_float32()
    rounds, steps = (1, 1) if given.small else (given.rounds, 3)
    rows = [row for row in ROWS if row.label in (REFERENCE, *given.only)]
    compare(figures, build_subjects(figures, rows, steps, small=given.small), rounds)
    measure_cache(figures, rounds, small=given.small)
    measure_transducer(figures, small=given.small)
    raise SystemExit(bool(figures.failed))


if __name__ == "__main__":
    main()
