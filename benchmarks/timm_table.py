"""Find out which CNNs of timm can be encoders, and write the table plugins/TIMM.md.

    python benchmarks/timm_table.py

Almost everything runs on the meta device, where a network takes time to build but no memory.
"""

import re
from collections.abc import Iterable
from dataclasses import astuple, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import get_pretrained_cfg_value
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from decoderbench import ConfigError, FeatureMapSpec, ImageSpec, InfeasibleError, limit_width_reduction, probe_features
from decoderbench_plugins.encoders.timm_cnn import TimmCNN

PAGE = Path(__file__).parents[1] / "plugins" / "TIMM.md"
IMAGE = ImageSpec(channels=1, height=32, width=128)
KEEP_WIDTH = 4
COLUMNS_NEEDED = 24
_usual_stage: dict[str, int] = {}  # family -> stage of the latest model, in this process
_PRODUCTS = {"matmul", "bmm", "baddbmm", "einsum", "scaled_dot_product_attention"}
_REDUCTION = 8  # the deepest map reduced by at most this is used: 4 of 32 rows remain


@dataclass(frozen=True)
class Row:
    """The row of one model; models of kind "other" have a family and a name only.

    Attributes:
        family: timm's module.
        kind: "CNN", "hybrid" or "other", as defined at the top of the page.
        stage: index of the feature map.
        reduction: reduction of that map, as declared by timm.
        thousands: thousands of parameters up to that stage.
        plain: size of the map without `keep_width`, channels x height x width; "-" if the model cannot read the images.
        columns: T, width of the map with `keep_width`; 0 if not usable.
        reason: why the model is not usable, or empty.
    """

    family: str
    name: str
    kind: str
    stage: int = 0
    reduction: int = 0
    thousands: int = 0
    plain: str = "-"
    columns: int = 0
    reason: str = ""

    @property
    def usable(self) -> bool:
        return self.columns >= COLUMNS_NEEDED


class _ProductDetector(TorchFunctionMode):
    """Detects matrix products of two computed tensors, as in attention."""

    found = False

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(function, "__name__", "").strip("_") in _PRODUCTS:
            computed = [arg for arg in args if isinstance(arg, Tensor) and not isinstance(arg, nn.Parameter)]
            computed += [item for arg in args if isinstance(arg, list | tuple) for item in arg]
            self.found |= len(computed) > 1
        return function(*args, **(kwargs or {}))


def build_row(name: str) -> Row:
    """Return the row of a model, checked by forward passes.

    Raises:
        AssertionError: a forward pass does not yield a map of the declared size.
    """
    family = timm.models.model_entrypoint(name).__module__.rpartition(".")[2]
    guess = _usual_stage.get(family, 2)  # the stages are known only after the network is built
    encoder, problem = _try_on_meta(name, guess)
    infos = (encoder.network if encoder else _features_only(name, 0)).feature_info.info
    stage = _usual_stage[family] = useful_stage([info["reduction"] for info in infos])
    if stage != guess:
        encoder, problem = _try_on_meta(name, stage)
    place = {"stage": stage, "reduction": infos[stage]["reduction"]}
    if encoder is None:
        kind, place["thousands"] = _classify_at_own_size(name, stage)
        return Row(family, name, kind, **({} if kind == "other" else place | {"reason": _shorten(problem)}))
    plain = encoder.features
    kind = _kind(encoder, IMAGE)
    if kind == "other":
        return Row(family, name, kind)
    place |= {"thousands": _thousands(encoder), "plain": f"{plain.channels}x{plain.height}x{plain.width}"}
    try:
        limit_width_reduction(encoder, IMAGE, KEEP_WIDTH)
    except InfeasibleError as error:
        return Row(family, name, kind, **place, reason=_shorten(error))
    kept = probe_features(encoder, IMAGE)
    _check_forward(encoder, kept, IMAGE)
    assert (kept.channels, kept.height) == (plain.channels, plain.height), name
    few = "" if kept.width >= COLUMNS_NEEDED else f"fewer than {COLUMNS_NEEDED} columns remain"
    return Row(family, name, kind, **place, columns=kept.width, reason=few)


def build_rows(names: Iterable[str]) -> list[Row]:
    """Return the rows of many models, sorted, built by two processes.

    The meta device has shapes but no values, so it misses errors such as an index beyond the end of a table. Therefore
    the smallest usable model of every family is also computed on the CPU. If that fails, no model of the family counts
    as usable.
    """
    with get_context("spawn").Pool(2, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        found = sorted(pool.imap_unordered(build_row, names, chunksize=4), key=astuple)
        problems = dict(pool.imap_unordered(_find_problem, smallest_usable(found)))
    failed = [entry.usable and problems[entry.family, entry.kind] for entry in found]
    return [replace(entry, columns=0, reason=why) if why else entry for entry, why in zip(found, failed, strict=True)]


def smallest_usable(table: Iterable[Row]) -> list[Row]:
    """Return the usable model with the fewest parameters for each family and kind."""
    members: dict[tuple[str, str], Row] = {}
    for entry in sorted(table, key=lambda entry: (entry.thousands, entry.name)):
        if entry.usable:
            members.setdefault((entry.family, entry.kind), entry)
    return list(members.values())


def compute(entry: Row) -> Tensor:
    """Return the feature map of random images, computed on the CPU with random weights."""
    encoder = TimmCNN(TimmCNN.Config(model=entry.name, stage=entry.stage, keep_width=KEEP_WIDTH), IMAGE).eval()
    with torch.no_grad():
        features: Tensor = encoder(torch.randn(2, IMAGE.channels, IMAGE.height, IMAGE.width))
    return features


def _find_problem(entry: Row) -> tuple[tuple[str, str], str]:
    """Return family and kind of a model, and the reason why it cannot be computed, empty if it can."""
    try:
        compute(entry)
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
        return (entry.family, entry.kind), f"{entry.name}, the smallest of its family, cannot be computed: {error}"
    return (entry.family, entry.kind), ""


def useful_stage(reductions: list[int]) -> int:
    """Return the deepest stage that is reduced by at most 8, or the first stage if there is none."""
    return max((index for index, reduction in enumerate(reductions) if reduction <= _REDUCTION), default=0)


def _try_on_meta(name: str, stage: int) -> tuple[TimmCNN, None] | tuple[None, Exception]:
    """Return the encoder on the meta device, or the error if it cannot be built."""
    try:
        return _on_meta(name, stage), None
    except (ConfigError, InfeasibleError) as error:
        return None, error


def _on_meta(name: str, stage: int, image: ImageSpec = IMAGE) -> TimmCNN:
    with torch.device("meta"):
        return TimmCNN(TimmCNN.Config(model=name, stage=stage), image)


def _classify_at_own_size(name: str, stage: int) -> tuple[str, int]:
    """Return kind and thousands of parameters of a model that cannot read the images, at the size that it expects."""
    channels, height, width = get_pretrained_cfg_value(name, "input_size")
    image = ImageSpec(channels=channels, height=height, width=width)
    try:
        encoder = _on_meta(name, stage, image)
    except InfeasibleError:  # on the meta device: its shapes depend on values, such as a list of patches
        network = _features_only(name, stage)
        return "hybrid" if _has_overlapping_convolution(network) else "other", _thousands(network)
    return _kind(encoder, image), _thousands(encoder)


def _features_only(name: str, stage: int) -> Any:
    with torch.device("meta"):
        return timm.create_model(name, features_only=True, out_indices=(stage,))


def _thousands(encoder: nn.Module) -> int:
    return round(sum(parameter.numel() for parameter in encoder.parameters()) / 1000)


def _check_forward(encoder: nn.Module, declared: FeatureMapSpec, image: ImageSpec) -> None:
    """Check the size of the map in training mode, which the probe of shapes does not use."""
    with torch.no_grad():
        features = encoder(torch.empty(2, image.channels, image.height, image.width, device="meta"))
    assert features.shape == (2, declared.channels, declared.height, declared.width), (features.shape, declared)


def _kind(encoder: TimmCNN, image: ImageSpec) -> str:
    with _ProductDetector() as products:
        _check_forward(encoder, encoder.features, image)
    if not _has_overlapping_convolution(encoder):
        return "other"
    return "hybrid" if products.found else "CNN"


def _has_overlapping_convolution(network: nn.Module) -> bool:
    """Return whether a convolution after the first has a kernel larger than its stride; the first may cut patches."""
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    return any(_overlaps(convolution) for convolution in convolutions[1:])


def _overlaps(convolution: Any) -> bool:
    stride = convolution.stride if isinstance(convolution.stride, tuple) else (convolution.stride,) * 2
    return any(window > step for window, step in zip(convolution.kernel_size, stride, strict=True))


def _shorten(error: Exception) -> str:
    """Return the reason in an error, without the name of the model and the advice."""
    text = re.sub(r"^timm model '\S+' ", "", str(error)).partition("; choose ")[0]
    return re.sub(r" up to stage \d+", "", text).replace("|", "/")


HEAD = """# timm's CNNs as encoders

The models of timm that the encoder `timm_cnn` can use for lines of text: gray images of {height} x {width} (height x
width), `keep_width = {keep}`. Written by `python benchmarks/timm_table.py` with timm {timm} and torch {torch}; do not
edit. `tests/integration/test_timm_breadth.py` checks it.

- **stage**: the deepest feature map that timm declares as reduced by at most {patch}; the first if there is none.
- **usable**: with `keep_width = {keep}`, that map has T >= {needed} columns, and its channels and rows do not change.
- **CNN**: up to that stage, a convolution after the first has a kernel larger than its stride, and no two computed
  tensors are multiplied as matrices. **hybrid**: there is such a convolution and such a product. Attention is such a
  product, and so are global context and channel attention by products. All other models (transformers, MLP mixers) are
  only listed. A model that cannot read the images is classified at the input size that timm declares for it.

Every model runs on the meta device, with and without `keep_width`, and its map must have the declared size. The
smallest usable CNN and hybrid of every family is also computed on the CPU. If that fails, no model of that family and
kind counts as usable.
"""


def format_page(table: list[Row]) -> str:
    """Return the text of TIMM.md."""
    listed = [entry for entry in table if entry.kind != "other"]
    others = [entry for entry in table if entry.kind == "other"]
    head = HEAD.format(
        height=IMAGE.height, width=IMAGE.width, keep=KEEP_WIDTH, needed=COLUMNS_NEEDED, patch=_REDUCTION,
        timm=timm.__version__, torch=torch.__version__.partition("+")[0],
    )  # fmt: skip
    unusable = [(entry.family, entry.kind, entry.name, entry.reason) for entry in listed if not entry.usable]
    parts = [
        head,
        "## Summary\n",
        *_format_table("family kind names usable T", summarize(listed)),
        "\n## Not usable\n",
        *_format_table("family kind name reason", unusable),
        "\n## All CNNs and hybrids\n",
        "thousands: thousands of parameters up to the stage. map: channels x rows x columns without `keep_width`.\n",
        *_format_table("family name kind stage reduction thousands map T", [astuple(entry)[:-1] for entry in listed]),
        "\n## Neither\n",
        *_format_table("family name", [(entry.family, entry.name) for entry in others]),
    ]
    return "\n".join(parts) + "\n"


def summarize(table: list[Row]) -> list[tuple[Any, ...]]:
    """Return family, kind, numbers of models and of usable models, and the range of T: of all, then per family."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for family, entry in [("all", entry) for entry in table] + [(entry.family, entry) for entry in table]:
        groups.setdefault((family, entry.kind), []).append(entry)
    found = []
    for (family, kind), entries in groups.items():
        columns = [entry.columns for entry in entries if entry.usable]
        extent = " to ".join(map(str, sorted({min(columns), max(columns)}))) if columns else "-"
        found.append((family, kind, len(entries), len(columns), extent))
    return found


def read_page(text: str) -> list[Row]:
    """Return the rows of a page that `format_page` wrote."""
    sections = {
        part.partition("\n")[0]: [
            [cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line.startswith("|")
        ][2:]
        for part in text.split("\n## ")
    }
    reasons = {name: reason for _, _, name, reason in sections["Not usable"]}
    listed = [
        Row(family, name, kind, int(stage), int(reduction), int(thousands), plain, int(columns), reasons.get(name, ""))
        for family, name, kind, stage, reduction, thousands, plain, columns in sections["All CNNs and hybrids"]
    ]
    others = [Row(family, name, "other") for family, name in sections["Neither"]]
    return sorted(listed + others, key=astuple)


def _format_table(titles: str, entries: list[tuple[Any, ...]]) -> list[str]:
    cells = [tuple(titles.split()), ("---",) * len(titles.split()), *entries]
    return ["| " + " | ".join(map(str, line)) + " |" for line in cells]


if __name__ == "__main__":
    PAGE.write_text(format_page(build_rows(timm.list_models())))
