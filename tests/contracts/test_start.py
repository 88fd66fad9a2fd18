"""Trained weights under another order of the charset: every decoder reads the same texts, as likely as before."""

from __future__ import annotations

from typing import Any

import pytest
import safetensors.torch
import torch
from helpers.recording import make_cell
from helpers.support import DECODERS, REGISTRY, Options
from torch import nn

from decoderbench import Charset, InfeasibleError, Labels, LabelSpec, Memory, SequenceSpec
from decoderbench.config.grid import ComponentChoice
from decoderbench.model.recognizer import weights_of
from decoderbench.records.pack import Manifest, Pack
from decoderbench.training.start import load_start

TRAINED, PERMUTED = "abcdef", "fbdace"
TEXTS = ["fade", "bb", "c", "dacf"]
SPECS = [
    SequenceSpec(length=12, dim=32, left_to_right=True),
    SequenceSpec(length=12, dim=32, left_to_right=False, shape=(2, 6)),
]


def labels(charset: str) -> LabelSpec:
    return LabelSpec(charset=Charset(charset), max_length=6)


def pack_of(recognizer: nn.Module, charset: str) -> Pack:
    cell = make_cell()
    cell = cell.model_copy(update={"labels": cell.labels.model_copy(update={"charset": charset})})
    return Pack(Manifest(cell=cell), safetensors.torch.save(weights_of(recognizer)), "")


def build(name: str, options: Options, charset: str, seed: int) -> tuple[Any, Any, SequenceSpec]:
    """Return a recognizer that has only a decoder, what builds the decoder, and the spec of its memory."""
    registered, config = REGISTRY["decoder"].configure(ComponentChoice(use=name, **options))
    for spec in SPECS:
        torch.manual_seed(seed)
        try:
            decoder = registered.component(config, spec, labels(charset)).eval()
        except InfeasibleError:
            continue
        return nn.ModuleDict({"decoder": decoder}), lambda of, spec=spec: registered.component(config, spec, of), spec
    raise AssertionError(f"{name} reads none of these memories")


@pytest.mark.parametrize(("name", "options"), DECODERS)
def test_every_decoder_keeps_what_it_knows_of_each_character(name: str, options: Options) -> None:
    trained, _, spec = build(name, options, TRAINED, seed=0)
    started, build_decoder, _ = build(name, options, PERMUTED, seed=1)
    report = load_start(started, labels(PERMUTED), build_decoder, pack_of(trained, TRAINED))
    assert report.anew == ()
    assert report.by_character
    assert report.common == len(TRAINED)
    frames = torch.randn(len(TEXTS), spec.length, spec.dim, generator=torch.Generator().manual_seed(2))
    memory = Memory(frames, torch.ones(frames.shape[:2], dtype=torch.bool), spec.shape)
    with torch.inference_mode():
        nll = [
            recognizer["decoder"].nll(memory, Labels.from_texts(TEXTS, Charset(charset)))
            for recognizer, charset in ((trained, TRAINED), (started, PERMUTED))
        ]
        torch.testing.assert_close(nll[0], nll[1], atol=1e-4, rtol=1e-4)
        texts = []
        for recognizer, charset in ((trained, TRAINED), (started, PERMUTED)):
            read = recognizer["decoder"].transcribe(memory)
            rows = zip(read.ids.tolist(), read.lengths.tolist(), strict=True)
            texts.append([Charset(charset).decode(ids[:length]) for ids, length in rows])
    assert texts[0] == texts[1]


@pytest.mark.parametrize(("name", "options"), DECODERS)
def test_further_characters_start_anew_and_known_ones_keep_their_rows(name: str, options: Options) -> None:
    trained, _, _ = build(name, options, TRAINED, seed=0)
    started, build_decoder, _ = build(name, options, "gfha", seed=1)
    report = load_start(started, labels("gfha"), build_decoder, pack_of(trained, TRAINED))
    assert report.common == 2
    assert report.characters == 4
    assert report.by_character
    assert report.anew == ()


def test_weights_that_follow_the_charset_in_another_way_are_built_anew() -> None:
    """Two inputs of this cell follow the charset, and which columns belong to which character is not known."""
    options = {"pool": "frames", "feedback": "logits", "input_projection": "linear"}
    trained, _, _ = build("lstm_cell", options, TRAINED, seed=0)
    started, build_decoder, _ = build("lstm_cell", options, PERMUTED, seed=1)
    report = load_start(started, labels(PERMUTED), build_decoder, pack_of(trained, TRAINED))
    assert report.anew == ("decoder.cells.0.cell.weight_ih",)
