"""Every shipped component, and CNNs of timm, on a device against the CPU: values, gradients, texts, number formats.

    python benchmarks/gpu_smoke.py [--device cuda] [--out FILE.jsonl] [--small]

The reference is the CPU in float64; in float32 for components that know no other format. An error is the norm of the
difference over the norm of the reference. Number formats:

- ieee: float32 without TF32, as cells are trained. Outputs may differ by 1e-4, or by 10 times as much as those of the
  CPU in float32. So may gradients, where nothing has a kink. A ReLU or a maximum has one: rounding moves a few of its
  inputs across, which changes a few gradients as a whole, up to 0.8 % of the norm from float32 to float64 on a CPU.
- tf32: the default of cuDNN, switched on here to tell what it would change. No cell is trained so; there is no limit.
- bf16: autocast, as stages before the decoder are trained. It may differ twice as much as bf16 on a CPU.

On a CPU it compares the CPU with itself, to test the script.
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from itertools import pairwise

import torch
import torch.nn.functional as F
from figures import Figures, parser, start
from quickstart_cells import Cells, load_cells
from recognizers import build, draw, recognizers
from smoke_subjects import REGISTRY, TEXTS, Subject, labels_on, recording_recurrences, subjects
from torch import Tensor, nn

from decoderbench import Charset, CTCDecoder, Hypotheses, Labels, LabelSpec, SequenceSpec
from decoderbench.options import ComponentConfig
from decoderbench.training.devices import use_ieee_float32

CPU = torch.device("cpu")
CLOSE = 1e-4
KINKS = 2e-2
NEAR_TIE = 1e-3
Errors = dict[str, float]


def error_of(value: Tensor, reference: Tensor) -> float:
    """Return the norm of the difference over the norm of the reference; infinite where the value is not finite."""
    value, reference = value.detach().cpu().double(), reference.detach().cpu().double()
    error = float((value - reference).norm() / reference.norm().clamp(min=1e-30))
    return error if math.isfinite(error) else math.inf


def errors_of(values: dict[str, Tensor], reference: dict[str, Tensor]) -> Errors:
    """Return the error of the outputs, and the larger one of the gradients."""
    found = {name: error_of(values[name], expected) for name, expected in reference.items()}
    outputs = found.pop("outputs")
    return {"outputs": outputs, "gradients": max(found.values())}


def use_tf32() -> None:
    """Compute float32 products, convolutions and recurrences in TF32: the opposite of `use_ieee_float32`."""
    torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.conv.fp32_precision = "tf32"
    torch.backends.cudnn.rnn.fp32_precision = "tf32"
    torch.backends.cuda.matmul.fp32_precision = "tf32"


def reference_of(subject: Subject, module: nn.Module) -> dict[str, Tensor]:
    try:
        return subject.observe(copy.deepcopy(module).double(), CPU, torch.float64)
    except RuntimeError:  # it mixes in float32
        return subject.observe(module, CPU, torch.float32)


def compare(subject: Subject, device: torch.device) -> dict[str, tuple[Errors, Errors]]:
    """Return, for each number format, the errors on the device and the largest that are allowed."""
    module = subject.build()
    reference = reference_of(subject, module)
    in_float32 = errors_of(subject.observe(copy.deepcopy(module), CPU, torch.float32), reference)
    has_kinks = subject.kind in ("rectifier", "encoder")
    close = {
        "outputs": max(CLOSE, 10 * in_float32["outputs"]),
        "gradients": KINKS if has_kinks else max(CLOSE, 10 * in_float32["gradients"]),
    }
    limits = {"ieee": close}
    if device.type == "cuda":
        limits["tf32"] = dict.fromkeys(close, math.inf)
    if subject.kind != "decoder":
        in_bfloat16 = errors_of(subject.observe(copy.deepcopy(module), CPU, torch.float32, torch.bfloat16), reference)
        limits["bf16"] = {name: 1e-3 + 2 * error for name, error in in_bfloat16.items()}
    module.to(device)
    found = {}
    for number_format, limit in limits.items():
        (use_tf32 if number_format == "tf32" else use_ieee_float32)()
        autocast = torch.bfloat16 if number_format == "bf16" else None
        try:
            errors = errors_of(subject.observe(module, device, torch.float32, autocast), reference)
        except RuntimeError as error:  # the other components are worth knowing, too
            print(f"  {subject.title}: {number_format}: {error}")
            errors = dict.fromkeys(limit, math.inf)
        found[number_format] = errors, limit
    use_ieee_float32()
    return found


def compare_all(figures: Figures, chosen: list[Subject]) -> None:
    """Report the largest error of each kind of component and number format; print those of each component."""
    found: dict[str, list[float]] = defaultdict(list)
    beyond: dict[str, list[str]] = defaultdict(list)
    for subject in chosen:
        for number_format, (errors, limits) in compare(subject, figures.device).items():
            print(f"  {subject.title}: {number_format}", *(f"{name} {error:.1e}" for name, error in errors.items()))
            for name, error in errors.items():
                title = f"{subject.kind} in {number_format}: largest error of the {name}"
                found[title].append(error)
                if not error <= limits[name]:
                    beyond[title].append(f"  beyond {limits[name]:.1e}: {name} of {subject.title} in {number_format}")
    for title, errors in found.items():
        print(*beyond[title], sep="\n", end="\n" * bool(beyond[title]))
        figures.add(title, max(errors), "1", n=len(errors), ok=None if " tf32" in title else not beyond[title])
    if figures.device.type == "cuda" and torch.cuda.get_device_capability(figures.device) >= (8, 0):
        # Where TF32 is no different, the policy of float32 is not what was measured.
        largest = max(found["encoder in tf32: largest error of the outputs"])
        figures.add("TF32 is off in ieee: encoders differ", largest, "1", ok=largest > CLOSE)


def compare_transcriptions(figures: Figures, decoders: list[Subject]) -> None:
    """Texts must be equal, except where the best two nearly tie, so that rounding decides."""
    differing, wrong, rows, largest = 0, [], 0, 0.0
    for subject in decoders:
        module, memory = subject.build().eval(), subject.memory_of(3 * subject.inputs())
        on_device = copy.deepcopy(module).to(figures.device)
        for beam_size in (1, 3):
            with torch.inference_mode():
                expected = module.transcribe(memory, beam_size=beam_size)
                found = on_device.transcribe(memory.to(figures.device), beam_size=beam_size)
            differs = torch.tensor([one != other for one, other in zip(texts(found), texts(expected), strict=True)])
            distance = (found.log_prob.cpu() - expected.log_prob).abs() / (1 + expected.log_prob.abs())
            rows, differing = rows + len(memory), differing + int(differs.sum())
            largest = max(largest, float(distance.max()))
            if not bool((distance <= torch.where(differs, NEAR_TIE, CLOSE)).all()):
                wrong.append(f"{subject.title} beam {beam_size}")
    figures.add("transcriptions: rows that differ", differing, n=rows)
    figures.add("transcriptions: largest difference of log_prob", largest, "1", n=rows)
    figures.add("transcriptions: decoders that differ beyond a near tie", "; ".join(wrong) or "none", ok=not wrong)


def texts(hypotheses: Hypotheses) -> list[list[int]]:
    pairs = zip(hypotheses.ids.tolist(), hypotheses.lengths.tolist(), strict=True)
    return [ids[:length] for ids, length in pairs]


class Logits(CTCDecoder):
    """The memory as logits."""

    name = "logits"
    Config = ComponentConfig

    def forward(self, memory: Tensor) -> Tensor:
        return memory


def compare_ctc(figures: Figures, frames: int, batch: int, classes: int) -> None:
    """The nll of CTC and its gradient on the device, in float32, against PyTorch's own on the CPU in float64."""
    generator = torch.Generator().manual_seed(0)
    memory = torch.randn(batch, frames, classes, generator=generator)
    lengths = torch.randint(frames // 2 + 1, (batch,), generator=generator).tolist()
    charset = Charset("".join(chr(ord("a") + index) for index in range(classes - 1)))
    words = ["".join(charset.characters[(row + i) % len(charset)] for i in range(n)) for row, n in enumerate(lengths)]
    spec = LabelSpec(charset=charset, max_length=frames // 2, frames_needed=frames // 2)
    decoder = Logits(ComponentConfig(), SequenceSpec(length=frames, dim=classes, left_to_right=True), spec)

    logits = memory.to(figures.device).requires_grad_()
    nll = decoder.nll(logits, Labels.from_texts(words, charset, device=figures.device))
    exact, labels = memory.double().requires_grad_(), Labels.from_texts(words, charset)
    exact_nll = F.ctc_loss(
        exact.log_softmax(dim=-1).transpose(0, 1), labels.ids + 1, torch.full((batch,), frames), labels.lengths,
        reduction="none",
    )  # fmt: skip
    gradients = [torch.autograd.grad(value.sum(), given)[0] for value, given in ((nll, logits), (exact_nll, exact))]
    for name, error in (("nll", error_of(nll, exact_nll)), ("gradient", error_of(*gradients))):
        figures.add(f"CTC, {frames} frames, batch {batch}: error of the {name}", error, "1", ok=error <= CLOSE)


def check_short_ctc(figures: Figures, decoder: Subject) -> None:
    """With 2 frames, the nll is infinite exactly for the labels that need more."""
    memory = decoder.inputs()[:, :2].to(figures.device)
    nll = decoder.build().to(figures.device).nll(memory, labels_on(figures.device)).tolist()
    needed = [len(text) + sum(left == right for left, right in pairwise(text)) for text in TEXTS]
    pairs = zip(nll, needed, strict=True)
    right = [value == math.inf if frames > 2 else math.isfinite(value) for value, frames in pairs]
    figures.add("CTC, 2 frames: nll is infinite or finite as it must", sum(right), n=len(right), ok=all(right))


def check_recurrences(figures: Figures) -> None:
    """What arrives in the recurrences of a bf16 recognizer: on CUDA only float32, outside autocast."""
    device = figures.device
    model = build(REGISTRY, recognizers(32)["CRNN"], torch.bfloat16).to(device)
    with recording_recurrences(device) as formats:
        model.nll(*draw(4, device)).sum().backward()
    ok = set(formats) == {"float32"} if device.type == "cuda" else None
    figures.add("recurrences of a bf16 recognizer", ", ".join(sorted(set(formats))), n=len(formats), ok=ok)
    finite = all(bool(parameter.grad.isfinite().all()) for parameter in model.parameters())
    figures.add("gradients of a bf16 recognizer are finite", finite, ok=finite)


def compare_runs(figures: Figures, cells: Cells, name: str, steps: int) -> None:
    """Two trainings of a cell with one seed: how far apart they end."""
    losses, weights = [], []
    for _ in range(2):
        trainer = cells.trainer(cells.by_decoder[name])
        trainer.recognizer.train()
        torch.manual_seed(0)
        of_run = []
        for batch in trainer.context.batches(steps):
            trainer.take_step(batch)
            of_run.append(trainer.loss)
        losses.append(torch.stack(of_run))
        weights.append(torch.cat([parameter.detach().flatten() for parameter in trainer.recognizer.parameters()]))
    figures.add(f"{name}: two runs are equal bit for bit", bool(torch.equal(*weights)), n=steps)
    figures.add(f"{name}: distance of the losses of two runs", error_of(*losses), "1", n=steps)
    figures.add(f"{name}: distance of the weights of two runs", error_of(*weights), "1", n=steps)


def main() -> None:
    given = parser(__doc__).parse_args()
    figures = start("smoke", given)
    use_ieee_float32()
    chosen = list(subjects(small=given.small))
    decoders = [subject for subject in chosen if subject.kind == "decoder"]
    compare_all(figures, chosen)
    compare_transcriptions(figures, decoders)
    for sizes in ((12, 64, 11), (24, 256, 37)):  # those of quickstart, and about those of CRNN
        compare_ctc(figures, *sizes)
    check_short_ctc(figures, next(subject for subject in decoders if subject.case[0] == "ctc"))
    check_recurrences(figures)
    cells = load_cells(figures.device, small=given.small)
    for name in cells.by_decoder if not given.small else ("LSTM + CTC",):
        compare_runs(figures, cells, name, 2 if given.small else 20)
    raise SystemExit(bool(figures.failed))


if __name__ == "__main__":
    main()
