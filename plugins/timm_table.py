"""Which CNNs of timm can be encoders: walks all of them and writes TIMM.md, the table beside this file.

    python plugins/timm_table.py

Everything happens on the meta device, so that a network costs the time to build it and no memory.
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

PAGE = Path(__file__).with_name("TIMM.md")
IMAGE = ImageSpec(channels=1, height=32, width=128)
KEEP_WIDTH = 4
COLUMNS_NEEDED = 24
_usual_stage: dict[str, int] = {}  # by family, as found so far by this process
_PRODUCTS = {"matmul", "bmm", "baddbmm", "einsum", "scaled_dot_product_attention"}
_REDUCTION = 8  # the deepest map reduced by at most this is the useful one: 4 rows are left of 32


@dataclass(frozen=True)
class Row:
    """What the table says of one model; of those of the kind "other" the name alone.

    Attributes:
        family: timm's module.
        kind: "CNN", "hybrid" or "other", as the head of the page defines them.
        stage: the index of the tapped map; `reduction` is timm's word on it.
        thousands: of parameters, up to that stage.
        plain: the map without `keep_width`, channels x height x width; "-" if the images cannot be read.
        columns: T, the width of the map with `keep_width`; 0 if not usable.
        reason: why it is not usable, or empty.
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


class _Products(TorchFunctionMode):
    """Sees whether two computed tensors are multiplied as matrices: that is what attention does."""

    seen = False

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(function, "__name__", "").strip("_") in _PRODUCTS:
            computed = [arg for arg in args if isinstance(arg, Tensor) and not isinstance(arg, nn.Parameter)]
            computed += [item for arg in args if isinstance(arg, list | tuple) for item in arg]
            self.seen |= len(computed) > 1
        return function(*args, **(kwargs or {}))


def row(name: str) -> Row:
    """Return the row of a model, after forwards that showed it to be true.

    Raises:
        AssertionError: if a forward does not yield the map that was declared.
    """
    family = timm.models.model_entrypoint(name).__module__.rpartition(".")[2]
    guess = _usual_stage.get(family, 2)  # the stages are known only when the network is there
    encoder, problem = _tried(name, guess)
    infos = (encoder.network if encoder else _features_only(name, 0)).feature_info.info
    stage = _usual_stage[family] = useful_stage([info["reduction"] for info in infos])
    if stage != guess:
        encoder, problem = _tried(name, stage)
    place = {"stage": stage, "reduction": infos[stage]["reduction"]}
    if encoder is None:
        kind, place["thousands"] = _judged_at_its_own_size(name, stage)
        return Row(family, name, kind, **({} if kind == "other" else place | {"reason": _shortened(problem)}))
    plain = encoder.features
    kind = _kind(encoder, IMAGE)
    if kind == "other":
        return Row(family, name, kind)
    place |= {"thousands": _thousands(encoder), "plain": f"{plain.channels}x{plain.height}x{plain.width}"}
    try:
        limit_width_reduction(encoder, IMAGE, KEEP_WIDTH)
    except InfeasibleError as error:
        return Row(family, name, kind, **place, reason=_shortened(error))
    kept = probe_features(encoder, IMAGE)
    _forward(encoder, kept, IMAGE)
    assert (kept.channels, kept.height) == (plain.channels, plain.height), name
    few = "" if kept.width >= COLUMNS_NEEDED else f"fewer than {COLUMNS_NEEDED} columns are left"
    return Row(family, name, kind, **place, columns=kept.width, reason=few)


def rows(names: Iterable[str]) -> list[Row]:
    """Return the rows of many models, sorted, found by two processes.

    The meta device knows shapes and not values, such as an index beyond the end of a table. So the smallest usable
    member of every family is computed too, and where it fails none of its family counts as usable.
    """
    with get_context("spawn").Pool(2, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        found = sorted(pool.imap_unordered(row, names, chunksize=4), key=astuple)
        problems = dict(pool.imap_unordered(_problem, smallest_usable(found)))
    failed = [entry.usable and problems[entry.family, entry.kind] for entry in found]
    return [replace(entry, columns=0, reason=why) if why else entry for entry, why in zip(found, failed, strict=True)]


def smallest_usable(table: Iterable[Row]) -> list[Row]:
    """Return the usable member of every family, its CNNs and hybrids apart, that has the fewest parameters."""
    members: dict[tuple[str, str], Row] = {}
    for entry in sorted(table, key=lambda entry: (entry.thousands, entry.name)):
        if entry.usable:
            members.setdefault((entry.family, entry.kind), entry)
    return list(members.values())


def compute(entry: Row) -> Tensor:
    """Return the map of random images on the CPU: the network built, weights drawn, everything computed."""
    encoder = TimmCNN(TimmCNN.Config(model=entry.name, stage=entry.stage, keep_width=KEEP_WIDTH), IMAGE).eval()
    with torch.no_grad():
        features: Tensor = encoder(torch.randn(2, IMAGE.channels, IMAGE.height, IMAGE.width))
    return features


def _problem(entry: Row) -> tuple[tuple[str, str], str]:
    """Return family and kind of a model, and why the model cannot be computed, if so."""
    try:
        compute(entry)
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
        return (entry.family, entry.kind), f"{entry.name}, the smallest of its family, cannot be computed: {error}"
    return (entry.family, entry.kind), ""


def useful_stage(reductions: list[int]) -> int:
    """Return the deepest stage that is reduced by at most 8, the first one if there is none."""
    return max((index for index, reduction in enumerate(reductions) if reduction <= _REDUCTION), default=0)


def _tried(name: str, stage: int) -> tuple[TimmCNN, None] | tuple[None, Exception]:
    """Return the encoder on the meta device, or why there is none."""
    try:
        return _on_meta(name, stage), None
    except (ConfigError, InfeasibleError) as error:
        return None, error


def _on_meta(name: str, stage: int, image: ImageSpec = IMAGE) -> TimmCNN:
    with torch.device("meta"):
        return TimmCNN(TimmCNN.Config(model=name, stage=stage), image)


def _judged_at_its_own_size(name: str, stage: int) -> tuple[str, int]:
    """Return kind and thousands of parameters of a model that cannot read the images."""
    channels, height, width = get_pretrained_cfg_value(name, "input_size")
    image = ImageSpec(channels=channels, height=height, width=width)
    try:
        encoder = _on_meta(name, stage, image)
    except InfeasibleError:  # not on the meta device, at least: values decide on shapes, as with a list of patches
        network = _features_only(name, stage)
        return "hybrid" if _convolves(network) else "other", _thousands(network)
    return _kind(encoder, image), _thousands(encoder)


def _features_only(name: str, stage: int) -> Any:
    with torch.device("meta"):
        return timm.create_model(name, features_only=True, out_indices=(stage,))


def _thousands(encoder: nn.Module) -> int:
    return round(sum(parameter.numel() for parameter in encoder.parameters()) / 1000)


def _forward(encoder: nn.Module, declared: FeatureMapSpec, image: ImageSpec) -> None:
    """Let the encoder read images as in training, which the probe of shapes does not, and check its map."""
    with torch.no_grad():
        features = encoder(torch.empty(2, image.channels, image.height, image.width, device="meta"))
    assert features.shape == (2, declared.channels, declared.height, declared.width), (features.shape, declared)


def _kind(encoder: TimmCNN, image: ImageSpec) -> str:
    with _Products() as products:
        _forward(encoder, encoder.features, image)
    if not _convolves(encoder):
        return "other"
    return "hybrid" if products.seen else "CNN"


def _convolves(network: nn.Module) -> bool:
    """Say whether a convolution after the first looks beyond its stride: patches and images are cut by the first."""
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    return any(_overlaps(convolution) for convolution in convolutions[1:])


def _overlaps(convolution: Any) -> bool:
    stride = convolution.stride if isinstance(convolution.stride, tuple) else (convolution.stride,) * 2
    return any(window > step for window, step in zip(convolution.kernel_size, stride, strict=True))


def _shortened(error: Exception) -> str:
    """Return a reason without the name of the model and the advice."""
    text = re.sub(r"^timm model '\S+' ", "", str(error)).partition("; choose ")[0]
    return re.sub(r" up to stage \d+", "", text).replace("|", "/")


HEAD = """# timm's CNNs as encoders

Which models of timm the encoder `timm_cnn` can use for lines of text: gray images of {height} x {width} (height x
width), `keep_width = {keep}`. Made by `python plugins/timm_table.py` with timm {timm} and torch {torch}; do not edit.
`tests/integration/test_timm_breadth.py` keeps it true.

- **stage**: the deepest feature map that timm declares as reduced by at most {patch}; the first if there is none.
- **usable**: with `keep_width = {keep}` that map has T >= {needed} columns, as declared; channels and rows stay.
- **CNN**: up to that stage, a convolution after the first looks beyond its stride, and no two computed tensors are
  multiplied as matrices. **hybrid**: there is such a convolution and such a product. Attention is one; so are global
  context and channel attention by products. All other models, transformers and MLP mixers, are only listed. A model
  that cannot read the images is judged at the size that timm names for it.

All models go through forwards on the meta device, with and without `keep_width`, which must yield what is declared.
The smallest usable CNN and hybrid of every family is computed as well, and where that fails, all like it count as not
usable.
"""


def page(table: list[Row]) -> str:
    """Return TIMM.md."""
    walked = [entry for entry in table if entry.kind != "other"]
    others = [entry for entry in table if entry.kind == "other"]
    head = HEAD.format(
        height=IMAGE.height, width=IMAGE.width, keep=KEEP_WIDTH, needed=COLUMNS_NEEDED, patch=_REDUCTION,
        timm=timm.__version__, torch=torch.__version__.partition("+")[0],
    )  # fmt: skip
    unusable = [(entry.family, entry.kind, entry.name, entry.reason) for entry in walked if not entry.usable]
    parts = [
        head,
        "## Summary\n",
        *_lines("family kind names usable T", summary(walked)),
        "\n## Not usable\n",
        *_lines("family kind name reason", unusable),
        "\n## All CNNs and hybrids\n",
        "Thousands of parameters up to the stage; the map, channels x rows x columns, is that without `keep_width`.\n",
        *_lines("family name kind stage reduction thousands map T", [astuple(entry)[:-1] for entry in walked]),
        "\n## Neither\n",
        *_lines("family name", [(entry.family, entry.name) for entry in others]),
    ]
    return "\n".join(parts) + "\n"


def summary(walked: list[Row]) -> list[tuple[Any, ...]]:
    """Return family, kind, names, usable names and the range of T, by family and, first, of all."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for family, entry in [("all", entry) for entry in walked] + [(entry.family, entry) for entry in walked]:
        groups.setdefault((family, entry.kind), []).append(entry)
    found = []
    for (family, kind), entries in groups.items():
        columns = [entry.columns for entry in entries if entry.usable]
        extent = " to ".join(map(str, sorted({min(columns), max(columns)}))) if columns else "-"
        found.append((family, kind, len(entries), len(columns), extent))
    return found


def read(text: str) -> list[Row]:
    """Return the rows of a page that `page` wrote."""
    sections = {
        part.partition("\n")[0]: [
            [cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line.startswith("|")
        ][2:]
        for part in text.split("\n## ")
    }
    reasons = {name: reason for _, _, name, reason in sections["Not usable"]}
    walked = [
        Row(family, name, kind, int(stage), int(reduction), int(thousands), plain, int(columns), reasons.get(name, ""))
        for family, name, kind, stage, reduction, thousands, plain, columns in sections["All CNNs and hybrids"]
    ]
    others = [Row(family, name, "other") for family, name in sections["Neither"]]
    return sorted(walked + others, key=astuple)


def _lines(titles: str, entries: list[tuple[Any, ...]]) -> list[str]:
    cells = [tuple(titles.split()), ("---",) * len(titles.split()), *entries]
    return ["| " + " | ".join(map(str, line)) + " |" for line in cells]


if __name__ == "__main__":
    PAGE.write_text(page(rows(timm.list_models())))
