"""Speed of two published recognizers in training and transcription, relative to their matrix products alone.

    python benchmarks/recognizers.py [--batch-sizes 192 512] [--rounds 5] [--width-share 1] [--only CRNN]
                                     [--profile FILE] [--device cpu] [--out FILE.jsonl] [--small]

TRBA is TPS, ResNet, BiLSTM and attention; CRNN is VGG, BiLSTM and CTC (Baek et al. 2019), on gray images of 32 x 100
with texts of 24 characters. The limit is the time for the multiply-accumulates of an image (three times as many in
training) at the rate of large products in the same number format, measured in the same rounds. This rate is the faster
one of torch.mm and a 3x3 convolution, which use different libraries (on AMD, the float32 product of MKL is slower). The
fastest rounds count, because other processes on a machine can only add time. float32 means float32, not TF32, for
products and convolutions alike. In bfloat16, decoder, recurrences and optimizer stay in float32, so no recognizer can
reach that limit. Goal: 85 % of the limit.
On CUDA, bfloat16 is measured with and without cudnn.benchmark, which tries the algorithms of a convolution when a shape
is new; the first training step tells what that costs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from figures import Figures, parser, seconds, start
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from decoderbench import Charset, ImageSpec, Labels, LabelSpec
from decoderbench.data.resident_dataset import Batch
from decoderbench.model.complexity import count_gmacs, count_parameters
from decoderbench.model.recognizer import Recognizer
from decoderbench.options import TrainingOptions
from decoderbench.registry.plugin_manager import build_plugin_manager
from decoderbench.registry.registry import Registry
from decoderbench.training.devices import release_memory, synchronize, use_ieee_float32
from decoderbench.training.memory import TrainingMemory, transcription_peak_mb
from decoderbench.training.optimizer import build_optimizer

IMAGE = ImageSpec(channels=1, height=32, width=100)
LABELS = LabelSpec(charset=Charset("0123456789abcdefghijklmnopqrstuvwxyz"), max_length=25, frames_needed=24)
ATTENTION = {"wiring": "baek2019"}
PRODUCTS = 8  # per round, so a short idle moment of a shared machine does not set the limit

Stage = tuple[str, dict[str, Any]]
Loop = Callable[[], object]


@dataclass(frozen=True)
class Sizes:
    """How large the measured things are: images of a batch, n of an n x n product, batch of the convolution.

    The convolution is one of the ResNet: 512 channels to 512, on maps of 8 x 26.
    """

    batches: tuple[int, ...]
    product: int
    convolution: int


SIZES = {"cpu": Sizes((32,), 2048, 16), "cuda": Sizes((192, 512), 8192, 512)}
SMALL = Sizes((2,), 256, 1)


def recognizers(output_channels: int) -> dict[str, tuple[Stage, Stage, Stage, Stage]]:
    """Return the four stages of each recognizer as names and options: rectifier, encoder, bridge, decoder."""
    width = {"output_channels": output_channels}
    return {
        "TRBA": (("tps", width), ("resnet_fan", width), ("bilstm", {}), ("attention_lstm", ATTENTION)),
        "CRNN": (("none", {}), ("crnn_vgg", width), ("bilstm", {}), ("ctc", {})),
    }


def build(registry: Registry, stages: tuple[Stage, ...], dtype: torch.dtype | None = None) -> Recognizer:
    def stage(shelf: Any, chosen: Stage, *specs: object) -> Any:
        component = shelf[chosen[0]].component
        return component(component.Config.model_validate(chosen[1]), *specs)

    rectifier = stage(registry["rectifier"], stages[0], IMAGE)
    encoder = stage(registry["encoder"], stages[1], rectifier.image)
    bridge = stage(registry["bridge"], stages[2], encoder.features)
    return Recognizer(
        rectifier, encoder, bridge, stage(registry["decoder"], stages[3], bridge.memory, LABELS), dtype=dtype
    )


def describe(figures: Figures, name: str, registry: Registry, stages: tuple[Stage, ...]) -> float:
    """Report the size of a recognizer; return its 10^9 multiply-accumulates per image."""
    with torch.device("meta"):
        model = build(registry, stages).eval()
        gmacs = count_gmacs(model.transcribe, torch.empty(1, IMAGE.channels, IMAGE.height, IMAGE.width))
    assert gmacs is not None
    figures.add(f"{name}: parameters", count_parameters(model) / 1e6, "M")
    figures.add(f"{name}: multiply-accumulates", gmacs, "GMACs/image")
    return gmacs


def draw(batch_size: int, device: torch.device) -> tuple[Tensor, Labels]:
    """Draw images and labels. All labels have 24 distinct characters, so CTC needs only 24 frames."""
    images = 2 * torch.rand(batch_size, IMAGE.channels, IMAGE.height, IMAGE.width, device=device) - 1
    length = LABELS.frames_needed
    ids = torch.stack([torch.randperm(len(LABELS.charset))[: LABELS.max_length] for _ in range(batch_size)]).to(device)
    return images, Labels(ids, torch.full((batch_size,), length, device=device), (length,) * batch_size)


def large_products(device: torch.device, dtype: torch.dtype, sizes: Sizes) -> list[tuple[str, Loop, int]]:
    """Return functions that run large matrix products and convolutions, with their names and multiply-accumulates."""
    left, right = (torch.rand(sizes.product, sizes.product, device=device).to(dtype) for _ in range(2))
    maps, weight = (
        torch.rand(*shape, device=device).to(dtype, memory_format=torch.channels_last)
        for shape in ((sizes.convolution, 512, 8, 26), (512, 512, 3, 3))
    )

    def mm() -> None:
        for _ in range(PRODUCTS):
            torch.mm(left, right)

    def convolution() -> None:
        for _ in range(PRODUCTS):
            torch.conv2d(maps, weight, padding=1)

    convolution_macs = PRODUCTS * maps.numel() * weight[0].numel()
    return [("matrix product", mm, PRODUCTS * sizes.product**3), ("convolution", convolution, convolution_macs)]


@dataclass(frozen=True)
class Run:
    """How to measure: images of a batch, rounds, the products that set the limit, and a file for profiles."""

    batch_size: int
    rounds: int
    products: list[tuple[str, Loop, int]]
    profile: Path | None


@dataclass
class Subject:
    """A recognizer on the device with a batch, and what is done with it."""

    model: Recognizer
    images: Tensor
    labels: Labels
    options: TrainingOptions

    def __post_init__(self) -> None:
        self.optimizer = build_optimizer(self.model, self.options)

    def train(self) -> None:
        self.model.train()
        loss = self.model.nll(self.images, self.labels).sum() / self.labels.lengths.sum().clamp(min=1)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.options.clip_norm)
        self.optimizer.step()

    def transcribe(self) -> None:
        self.model.eval()
        with torch.inference_mode():
            self.model.transcribe(self.images)


def measure(figures: Figures, name: str, gmacs: float, model: Callable[[], Recognizer], run: Run) -> None:
    """Measure the training and the transcription of one recognizer in batches of one size."""
    device, rounds = figures.device, run.rounds
    memory = TrainingMemory(device)
    torch.manual_seed(0)
    subject = Subject(model().to(device), *draw(run.batch_size, device), TrainingOptions())
    figures.add(f"{name}: first training step", seconds(device, subject.train), "s")
    peaks = memory.peak_mb(), transcription_peak_mb(subject.model.eval(), Batch(subject.images, subject.labels))
    loops = (subject.train, subject.transcribe, *(loop for _, loop, _ in run.products))
    for loop in loops:
        loop()
    times = [[seconds(device, loop) for loop in loops] for _ in range(rounds)]
    columns = list(zip(*times, strict=True))
    rates = []
    for (what, _, macs), column in zip(run.products, columns[2:], strict=True):
        rates.append(macs / min(column) / 1e9)
        figures.add(f"{name}: {what}", rates[-1], "GMACs/s", n=rounds)
    for what, column, passes, peak in zip(("training", "transcription"), columns[:2], (3, 1), peaks, strict=True):
        fastest, slowest = (run.batch_size / took for took in (min(column), max(column)))
        figures.add(f"{name}: {what}", fastest, "images/s", n=rounds, spread=(fastest - slowest) / 2)
        figures.add(f"{name}: {what}, share of the limit", fastest * passes * gmacs / max(rates), "1", n=rounds)
        if peak is not None:
            figures.add(f"{name}: {what}, peak memory", peak, "MB")
    if run.profile:
        for what, loop in (("training", subject.train), ("transcription", subject.transcribe)):
            write_profile(run.profile, f"{name}: {what}", loop, device)


def write_profile(path: Path, title: str, loop: Loop, device: torch.device) -> None:
    """Append the table of one profiled call."""
    on_cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]
    with profile(activities=activities, acc_events=True) as found:
        loop()
        synchronize(device)
    order = "self_cuda_time_total" if on_cuda else "self_cpu_time_total"
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{title}\n{found.key_averages().table(sort_by=order, row_limit=20, max_name_column_width=45)}\n")


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument(
        "--batch-sizes", type=int, nargs="+", help="images per batch; default: 32, on CUDA 192 and 512"
    )
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument(
        "--width-share", type=float, default=1.0, help="share of the 512 channels of the published encoders"
    )
    arguments.add_argument("--only", choices=list(recognizers(512)))
    arguments.add_argument("--profile", type=Path, help="a file to append profiles to")
    given = arguments.parse_args()
    figures = start("recognizers", given)
    use_ieee_float32()
    sizes = SMALL if given.small else SIZES[figures.device.type]
    rounds, width = (1, 32) if given.small else (given.rounds, round(512 * given.width_share))
    only = given.only or ("CRNN" if given.small else None)
    chosen = {name: stages for name, stages in recognizers(width).items() if only in (None, name)}
    registry = Registry(build_plugin_manager())
    gmacs = {name: describe(figures, name, registry, stages) for name, stages in chosen.items()}
    batches = given.batch_sizes or sizes.batches
    # On CUDA, float32 is for comparison only: one batch size, one setting.
    settings = [(torch.float32, False, batches[:1]), (torch.bfloat16, False, batches)]
    if figures.device.type == "cuda":
        settings.append((torch.bfloat16, True, batches))
    for dtype, benchmark, batch_sizes in settings:
        torch.backends.cudnn.benchmark = benchmark
        products = large_products(figures.device, dtype, sizes)
        for (name, stages), batch_size in product(chosen.items(), batch_sizes):
            title = f"{name} {str(dtype).removeprefix('torch.')} {batch_size}{' benchmark' * benchmark}"
            profiled = dtype == torch.bfloat16 and not benchmark and batch_size == batch_sizes[-1]
            run = Run(batch_size, rounds, products, given.profile if profiled else None)
            model = partial(build, registry, stages, None if dtype == torch.float32 else dtype)
            measure(figures, title, gmacs[name], model, run)
            release_memory(figures.device)
    raise SystemExit(bool(figures.failed))


if __name__ == "__main__":
    main()
