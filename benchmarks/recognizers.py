"""Speed of two published recognizers in training and transcription, relative to their matrix products alone.

    python benchmarks/recognizers.py [--batch-size 32] [--rounds 5] [--width-share 1] [--device cpu] [--profile]

TRBA is TPS, ResNet, BiLSTM and attention; CRNN is VGG, BiLSTM and CTC (Baek et al. 2019), on gray images of 32 x 100
with texts of 24 characters. The limit is the time for the multiply-accumulates of an image (three times as many in
training) at the rate of large products in the same number format, measured in the same rounds. This rate is the faster
one of torch.mm and a 3x3 convolution, which use different libraries (on AMD, the float32 product of MKL is slower). The
fastest rounds count, because other processes on a machine can only add time. In bfloat16, decoder and optimizer stay in
float32, so no recognizer can reach that limit. Goal: 85 % of the limit.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from decoderbench import Charset, ImageSpec, Labels, LabelSpec
from decoderbench.model.complexity import count_gmacs, count_parameters
from decoderbench.model.recognizer import Recognizer
from decoderbench.options import TrainingOptions
from decoderbench.registry.plugin_manager import build_plugin_manager
from decoderbench.registry.registry import Registry
from decoderbench.training.devices import choose_device, device_name, synchronize
from decoderbench.training.optimizer import build_optimizer

IMAGE = ImageSpec(channels=1, height=32, width=100)
LABELS = LabelSpec(charset=Charset("0123456789abcdefghijklmnopqrstuvwxyz"), max_length=25, frames_needed=24)
ATTENTION = {"wiring": "baek2019"}
PRODUCT_SIZE = {"cpu": 2048, "cuda": 8192}
CONVOLUTION_BATCH = {"cpu": 16, "cuda": 512}  # of maps 512 x 8 x 26, as inside the ResNet
PRODUCTS = 8  # per round, so a short idle moment of a shared machine does not set the limit

Stage = tuple[str, dict[str, Any]]


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


def draw(batch_size: int, device: torch.device) -> tuple[Tensor, Labels]:
    """Draw images and labels. All labels have 24 distinct characters, so CTC needs only 24 frames."""
    images = 2 * torch.rand(batch_size, IMAGE.channels, IMAGE.height, IMAGE.width, device=device) - 1
    length = LABELS.frames_needed
    ids = torch.stack([torch.randperm(len(LABELS.charset))[: LABELS.max_length] for _ in range(batch_size)]).to(device)
    return images, Labels(ids, torch.full((batch_size,), length, device=device), (length,) * batch_size)


def seconds(device: torch.device, run: Callable[[], object]) -> float:
    synchronize(device)
    start = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - start


def large_products(device: torch.device, dtype: torch.dtype) -> list[tuple[Callable[[], object], int]]:
    """Return functions that run large matrix products and large convolutions, each with its multiply-accumulates."""
    size, batch = PRODUCT_SIZE[device.type], CONVOLUTION_BATCH[device.type]
    left, right = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
    maps, weight = (
        torch.rand(*shape, device=device).to(dtype, memory_format=torch.channels_last)
        for shape in ((batch, 512, 8, 26), (512, 512, 3, 3))
    )

    def mm() -> None:
        for _ in range(PRODUCTS):
            torch.mm(left, right)

    def convolution() -> None:
        for _ in range(PRODUCTS):
            torch.conv2d(maps, weight, padding=1)

    return [(mm, PRODUCTS * size**3), (convolution, PRODUCTS * maps.numel() * weight[0].numel())]


def measure(registry: Registry, name: str, stages: tuple[Stage, ...], dtype: torch.dtype, given: Any) -> None:
    device = choose_device(given.device)
    with torch.device("meta"):
        on_meta = build(registry, stages).eval()
        gmacs = count_gmacs(on_meta.transcribe, torch.empty(1, IMAGE.channels, IMAGE.height, IMAGE.width))
    assert gmacs is not None
    torch.manual_seed(0)
    model = build(registry, stages, None if dtype == torch.float32 else dtype).to(device)
    optimizer = build_optimizer(model, TrainingOptions())
    images, labels = draw(given.batch_size, device)

    def train() -> None:
        model.train()
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(model.nll(images, labels).mean())
        optimizer.step()

    def transcribe() -> None:
        model.eval()
        with torch.inference_mode():
            model.transcribe(images)

    products = large_products(device, dtype)
    loops = (train, transcribe, *(run for run, _ in products))
    for loop in loops:
        loop()
    times = [[seconds(device, loop) for loop in loops] for _ in range(given.rounds)]
    *fastest, mm, convolution = (min(column) for column in zip(*times, strict=True))
    rates = [macs / took for (_, macs), took in zip(products, (mm, convolution), strict=True)]
    print(
        f"{name} {str(dtype).removeprefix('torch.'):8} {count_parameters(model) / 1e6:5.1f} M parameters, "
        f"{gmacs:.3f} GMACs per image, "
        f"GMACs per second: matrix product {rates[0] / 1e9:.0f}, convolution {rates[1] / 1e9:.0f}"
    )
    for what, took, passes in zip(("training", "transcription"), fastest, (3, 1), strict=True):
        limit = passes * gmacs * 1e9 * given.batch_size / max(rates)
        print(
            f"  {what:13} {given.batch_size / took:8.1f} images per second, {limit / took:.0%} of the limit", flush=True
        )
    if given.profile:
        for loop in (train, transcribe):
            show_profile(loop, device)


def show_profile(loop: Callable[[], None], device: torch.device) -> None:
    on_cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]
    with profile(activities=activities) as found:
        loop()
        synchronize(device)
    order = "self_cuda_time_total" if on_cuda else "self_cpu_time_total"
    print(found.key_averages().table(sort_by=order, row_limit=20, max_name_column_width=45))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--width-share", type=float, default=1.0, help="share of the 512 channels of the published encoders"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", choices=list(recognizers(512)))
    parser.add_argument("--profile", action="store_true", help="also print a profile of one round")
    given = parser.parse_args()

    registry = Registry(build_plugin_manager())
    device = choose_device(given.device)
    threads = f"{torch.get_num_threads()} threads, " if device.type == "cpu" else ""
    print(f"{device_name(device)}, torch {torch.__version__}, {threads}batches of {given.batch_size}")
    for name, stages in recognizers(round(512 * given.width_share)).items():
        if given.only in (None, name):
            for dtype in (torch.float32, torch.bfloat16):
                measure(registry, name, stages, dtype, given)


if __name__ == "__main__":
    main()
