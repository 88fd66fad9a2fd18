"""Trained weights as a start: which tensors of a pack fit a new recognizer, and where its characters differ."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from decoderbench.config.cell import Cell, StartPoint, stages_alike
from decoderbench.config.grid import ComponentChoice
from decoderbench.errors import DataError
from decoderbench.exception_text import describe_error
from decoderbench.kinds import AXES
from decoderbench.labels import Charset
from decoderbench.model.recognizer import Recognizer
from decoderbench.model.stages import Decoder
from decoderbench.records.pack import Pack, read_pack
from decoderbench.registry.global_state import preserving_global_state
from decoderbench.registry.registry import Registry
from decoderbench.specs import LabelSpec
from decoderbench.training.building import build_recognizer

BuildDecoder = Callable[[LabelSpec], Decoder]

MOST_NAMED = 6
"""The most tensors that a line names."""


@dataclass(frozen=True)
class StartReport:
    """What a recognizer has of a pack.

    Attributes:
        loaded: names of the tensors that are those of the pack.
        by_character: names of those whose rows of common characters are those of the pack.
        anew: names of those that start as without a pack.
        unused: names of the pack's tensors that the recognizer does not have.
        common: number of characters that both charsets have.
        characters: number of characters of the new charset.
    """

    loaded: tuple[str, ...]
    by_character: tuple[str, ...]
    anew: tuple[str, ...]
    unused: tuple[str, ...]
    common: int
    characters: int

    def lines(self) -> list[str]:
        """Return it as sentences for people."""
        total = len(self.loaded) + len(self.by_character) + len(self.anew)
        found = [f"{len(self.loaded):,} of {total:,} tensors are those of the pack"]
        if self.by_character:
            found.append(
                f"{_named(self.by_character)}: rows of {self.common:,} of {self.characters:,} characters are those of "
                f"the pack"
            )
        if self.anew:
            found.append(f"built anew: {_named(self.anew)}")
        if self.unused:
            found.append(f"of the pack, not used: {_named(self.unused)}")
        return found


def read_start(file: Path, start: StartPoint) -> Pack:
    """Read the copy of a pack that a cell starts from.

    Raises:
        DataError: it cannot be read, or is another one than the cell states.
    """
    pack = read_pack(file)
    if pack.manifest.digest != start.digest:
        raise DataError(f"{file}: is not the pack that the cells were planned with; run again")
    return pack


def build_started(
    cell: Cell, registry: Registry, device: torch.device, pack: Pack | None
) -> tuple[Recognizer, StartReport | None]:
    """Build the recognizer of a cell, and load the stages that a pack has alike, if there is a pack.

    Every other stage has the first weights that it would have without a pack.

    Raises:
        DataError: nothing fits, or a frozen stage would have weights that nobody has trained.
    """
    if pack is None:
        return build_recognizer(cell, registry, device), None
    stages = stages_alike({axis: getattr(cell, axis) for axis in AXES}, pack.manifest.cell)
    recognizer = build_recognizer(cell, registry, device, loaded=stages)
    choice = ComponentChoice(use=cell.decoder.use, **cell.decoder.options)
    registered, config = registry["decoder"].configure(choice)
    memory = recognizer.bridge.memory
    report = load_start(
        recognizer, cell.labels.spec(), lambda labels: registered.component(config, memory, labels), pack, stages
    )
    _refuse_frozen(cell, report)
    return recognizer, report


def _refuse_frozen(cell: Cell, report: StartReport) -> None:
    unknown = report.common < report.characters
    partly = report.by_character if unknown else ()
    for stage in cell.training.freeze:
        if untrained := [name for name in (*report.anew, *partly) if name.startswith(f"{stage}.")]:
            raise DataError(
                f"the {stage} is frozen, but the pack has no trained weights for all of {_named(tuple(untrained))}; "
                f"train it, or start from a pack that has them"
            )


def load_start(
    recognizer: Recognizer,
    labels: LabelSpec,
    build: BuildDecoder,
    pack: Pack,
    stages: Collection[str] = AXES,
) -> StartReport:
    """Load the weights of a pack into a recognizer, as far as they fit.

    A tensor fits if it has the name and the shape of one of the pack. Where sizes follow the charset, the rows of the
    characters that both have are loaded, whatever their order, and those of blank, start and end.

    Args:
        recognizer: newly built.
        labels: the spec that its decoder was built from.
        build: builds this decoder for another spec.
        pack: what to start from.
        stages: those of the recognizer that are loaded.

    Raises:
        DataError: nothing fits, or the weights are no safetensors file.
    """
    old = load_tensors(pack.weights)
    charsets = labels.charset, pack.manifest.cell.labels.spec().charset
    by_charset = {} if charsets[0] == charsets[1] else _axes_of_characters(build, labels)
    new, loaded, by_character = recognizer.state_dict(), list[str](), list[str]()
    for name, value in new.items():
        given, axes = old.get(name), by_charset.get(name, ())
        if name.partition(".")[0] not in stages or not isinstance(value, Tensor) or given is None or axes is None:
            continue
        if not axes and given.shape == value.shape:
            new[name] = given.to(value.device, value.dtype)
            loaded.append(name)
        elif axes and (rows := _rows(given, value, {axis: _first(recognizer, name, axis) for axis in axes}, charsets)):
            new[name] = _with_rows(value, given, rows)
            by_character.append(name)
    if not {*loaded, *by_character} & {name for name, _ in recognizer.named_parameters()}:
        raise DataError(
            f"no tensor of {pack.manifest.cell.variant_title}, the pack, fits this recognizer; start from a pack with "
            f"the same encoder and options"
        )
    recognizer.load_state_dict(new)
    return StartReport(
        tuple(loaded),
        tuple(by_character),
        tuple(name for name in new if name not in {*loaded, *by_character}),
        tuple(name for name in old if name not in new),
        len(set(charsets[0].characters) & set(charsets[1].characters)),
        len(charsets[0]),
    )


def load_tensors(content: bytes) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file; raise `DataError` if it is none, or has types that torch does not."""
    try:
        return safetensors.torch.load(content)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise DataError(f"weights that are no safetensors file: {describe_error(error)}") from None


def _axes_of_characters(build: BuildDecoder, labels: LabelSpec) -> dict[str, tuple[int, ...] | None]:
    """Return which dimensions of which tensors of a recognizer follow the charset, by the tensor's name.

    Those are the dimensions that grow by one with one more character. None stands for a tensor that follows it in
    another way, so that nothing is known of its rows.
    """
    candidates = map(chr, range(0xF0000, 0xF0000 + len(labels.charset) + 1))  # for private use
    more = next(character for character in candidates if character not in labels.charset.characters)
    wider = replace(labels, charset=Charset(labels.charset.characters + more))
    before, after = (
        {name: value.shape for name, value in _on_meta(build, spec).state_dict().items() if isinstance(value, Tensor)}
        for spec in (labels, wider)
    )
    return {f"decoder.{name}": _grown(shape, after.get(name)) for name, shape in before.items()}


def _grown(shape: torch.Size, wider: torch.Size | None) -> tuple[int, ...] | None:
    if wider is None or len(wider) != len(shape):
        return None
    growth = [after - size for size, after in zip(shape, wider, strict=True)]
    return tuple(axis for axis, more in enumerate(growth) if more) if set(growth) <= {0, 1} else None


def _on_meta(build: BuildDecoder, labels: LabelSpec) -> Decoder:
    """Build a decoder without values; one whose constructor reads values gets them."""
    with preserving_global_state():
        try:
            with torch.device("meta"):
                return build(labels)
        except Exception:  # noqa: BLE001 - a plugin's constructor may raise anything where there are no values
            return build(labels)


def _first(recognizer: nn.Module, name: str, axis: int) -> int:
    """Return the place of the first character in a dimension, as the innermost decoder says that has the tensor."""
    prefix, decoder = max(
        ((prefix, part) for prefix, part in recognizer.named_modules() if isinstance(part, Decoder)
         and name.startswith(f"{prefix}.")), key=lambda owner: len(owner[0]),
    )  # fmt: skip
    return decoder.first_character_in(name.removeprefix(f"{prefix}."), axis)


def _rows(
    old: Tensor, new: Tensor, first_in: Mapping[int, int], charsets: tuple[Charset, Charset]
) -> list[tuple[list[int], list[int]]]:
    """Return for each dimension the places in the new tensor, and those in the old one that go there; [] if none fit.

    Args:
        old: that of the pack.
        new: that of the recognizer.
        first_in: the place of the first character in the dimensions that follow the charset.
        charsets: the new one and that of the pack.
    """
    if old.ndim != new.ndim:
        return []
    rows = []
    for axis, (before, after) in enumerate(zip(old.shape, new.shape, strict=True)):
        others = after - len(charsets[0]) if axis in first_in else 0
        fits = others == before - len(charsets[1]) if axis in first_in else before == after
        if not fits or not 0 <= first_in.get(axis, 0) <= others:
            return []
        pairs = (
            list(_pairs(charsets, first_in[axis], others)) if axis in first_in else [(at, at) for at in range(after)]
        )
        rows.append(([place for place, _ in pairs], [place for _, place in pairs]))
    return rows


def _pairs(charsets: tuple[Charset, Charset], first: int, others: int) -> Iterator[tuple[int, int]]:
    """Yield the new and the old class of each common character, and of blank, start and end."""
    new, old = charsets
    places = {character: place for place, character in enumerate(old.characters)}
    yield from ((place, place) for place in range(first))
    for place, character in enumerate(new.characters):
        if character in places:
            yield first + place, first + places[character]
    yield from ((first + len(new) + place, first + len(old) + place) for place in range(others - first))


def _with_rows(new: Tensor, old: Tensor, rows: list[tuple[list[int], list[int]]]) -> Tensor:
    """Return a tensor with the rows of another one in all dimensions at once."""
    into = torch.meshgrid(*(torch.tensor(places) for places, _ in rows), indexing="ij")
    out_of = torch.meshgrid(*(torch.tensor(places) for _, places in rows), indexing="ij")
    changed = new.detach().clone()
    changed[into] = old[out_of].to(new.device, new.dtype)
    return changed


def _named(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
    return f"{', '.join(names[:MOST_NAMED])}{more}"
