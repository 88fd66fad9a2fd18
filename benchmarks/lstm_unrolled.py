"""How much faster is nn.LSTM than a loop over LSTMCell? Both are the same function (tests/unit/test_lstm_cell.py).

    python benchmarks/lstm_unrolled.py [--rounds 15] [--device cpu] [--out FILE.jsonl] [--small]

Both decoders read one vector and feed back the embedding of a character. A ratio is the time of the loop divided by the
time of nn.LSTM: above 1, nn.LSTM is faster. A training step is nll and its backward pass; nn.LSTM computes all steps
in one call. A greedy transcription calls nn.LSTM step by step, like the loop. Rounds of both alternate, and the fastest
rounds are compared, because other processes on a machine can only add time.
"""

import string
from collections.abc import Callable
from functools import partial

import torch
from figures import Figures, parser, seconds, start
from torch import Tensor

from decoderbench import Charset, Labels, LabelSpec, SequenceSpec
from decoderbench.training.devices import use_ieee_float32
from decoderbench_plugins.decoders.lstm_cell import LSTMCellLoop, LSTMUnrolled

CHARSET = Charset(string.digits + string.ascii_lowercase)
MEMORY = SequenceSpec(length=1, dim=256, left_to_right=True)
SIZES = [  # characters, batch, hidden_dim
    (4, 64, 256),
    (4, 256, 256),
    (10, 64, 64),
    (10, 64, 256),
    (25, 64, 256),
    (25, 192, 256),
    (25, 64, 512),
]
SECONDS_PER_ROUND = 0.05


def train(decoder: LSTMCellLoop | LSTMUnrolled, memory: Tensor, labels: Labels) -> None:
    decoder.zero_grad(set_to_none=True)
    torch.autograd.backward(decoder.nll(memory, labels).sum())


def transcribe(decoder: LSTMCellLoop | LSTMUnrolled, memory: Tensor, labels: Labels) -> None:
    with torch.inference_mode():
        decoder.transcribe(memory)


def repeat(calls: int, run: Callable[[], None]) -> None:
    for _ in range(calls):
        run()


def measure(figures: Figures, length: int, batch: int, hidden_dim: int, rounds: int) -> None:
    device = figures.device
    decoders = []
    for cls in (LSTMCellLoop, LSTMUnrolled):
        config = cls.Config.model_validate({"hidden_dim": hidden_dim, "feedback": "embedding"})
        decoder = cls(config, MEMORY, LabelSpec(charset=CHARSET, max_length=length)).to(device)
        with torch.no_grad():
            decoder.fc_out.bias[decoder.end] -= 100  # so every text is decoded to its full length
        decoders.append(decoder)
    memory = torch.randn(batch, MEMORY.length, MEMORY.dim, device=device)
    ids = torch.randint(len(CHARSET), (batch, length), device=device)
    labels = Labels(ids, torch.full((batch,), length, device=device), (length,) * batch)

    for what, run in (("training step", train), ("transcription", transcribe)):
        runs = [partial(run, decoder, memory, labels) for decoder in decoders]
        repeat(3, runs[0])
        calls = 1 + int(SECONDS_PER_ROUND / seconds(device, runs[0]))
        times = [[seconds(device, partial(repeat, calls, run)) / calls for run in runs] for _ in range(1 + rounds)]
        loop, unrolled = (min(column) for column in zip(*times[1:], strict=True))  # the first round warms up
        title = f"S {length + 1}, B {batch}, hidden {hidden_dim}: {what}"
        figures.add(f"{title}, loop", 1e3 * loop, "ms", n=rounds)
        figures.add(f"{title}, nn.LSTM", 1e3 * unrolled, "ms", n=rounds)
        figures.add(f"{title}, ratio", loop / unrolled, "1", n=rounds)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--rounds", type=int, default=15)
    given = arguments.parse_args()
    figures = start("lstm_unrolled", given)
    use_ieee_float32()
    for length, batch, hidden_dim in SIZES[:1] if given.small else SIZES:
        measure(figures, length, batch, hidden_dim, 1 if given.small else given.rounds)
    raise SystemExit(bool(figures.failed))


if __name__ == "__main__":
    main()
