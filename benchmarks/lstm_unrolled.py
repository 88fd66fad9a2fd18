"""How much faster is nn.LSTM than a loop over LSTMCell? Both are the same function (tests/unit/test_lstm_cell.py).

    python benchmarks/lstm_unrolled.py [--rounds 15] [--device cpu]

Both decoders read one vector and feed back the embedding of a character. A ratio is the time of the loop divided by the
time of nn.LSTM: above 1, nn.LSTM is faster. A training step is nll and its backward pass; nn.LSTM computes all steps
in one call. A greedy transcription calls nn.LSTM step by step, like the loop. Rounds of both alternate, and the fastest
rounds are compared, because other processes on a machine can only add time.
"""

import argparse
import string
import time
from collections.abc import Callable

import torch
from torch import Tensor

from decoderbench import Charset, Labels, LabelSpec, SequenceSpec
from decoderbench.training.devices import choose_device, device_name, synchronize
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


def seconds(device: torch.device, calls: int, run: Callable[..., None], *arguments: object) -> float:
    synchronize(device)
    start = time.perf_counter()
    for _ in range(calls):
        run(*arguments)
    synchronize(device)
    return (time.perf_counter() - start) / calls


def measure(device: torch.device, length: int, batch: int, hidden_dim: int, rounds: int) -> str:
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

    columns = []
    for run in (train, transcribe):
        calls = 1 + int(SECONDS_PER_ROUND / seconds(device, 3, run, decoders[0], memory, labels))
        times = [
            [seconds(device, calls, run, decoder, memory, labels) for decoder in decoders] for _ in range(1 + rounds)
        ]
        loop, unrolled = (min(column) for column in zip(*times[1:], strict=True))  # the first round warms up
        columns.append(f"{1e3 * loop:8.2f} ms {1e3 * unrolled:8.2f} ms {loop / unrolled:6.2f}")
    return f"{length + 1:3} {batch:5} {hidden_dim:6}   {columns[0]}   {columns[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device")
    arguments = parser.parse_args()

    device = choose_device(arguments.device)
    print(f"{device_name(device)}, torch {torch.__version__}")
    print("  S     B hidden   training step: loop, nn.LSTM, ratio   transcription: loop, nn.LSTM, ratio")
    for length, batch, hidden_dim in SIZES:
        print(measure(device, length, batch, hidden_dim, arguments.rounds), flush=True)


if __name__ == "__main__":
    main()
