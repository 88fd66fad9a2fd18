"""SAR: its formulas, size, padding, and when it stops."""

import string
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.support import REGISTRY
from torch import Tensor, nn

from decoderbench import (
    Charset,
    Encoder,
    FeatureMapSpec,
    ImageSpec,
    InfeasibleError,
    Labels,
    LabelSpec,
    Memory,
    Recognizer,
    SequenceSpec,
)
from decoderbench_plugins.bridges.feature_map import FeatureMap
from decoderbench_plugins.decoders.sar import SAR

LABELS = LabelSpec(charset=Charset("abc"), max_length=4)


def build(dim: int, labels: LabelSpec = LABELS, **options: Any) -> SAR:
    torch.manual_seed(0)
    spec = SequenceSpec(length=12, dim=dim, left_to_right=False, shape=(2, 6))
    return SAR(SAR.Config(**options), spec, labels).eval()


def of_map(features: Tensor, columns: list[int]) -> Memory:
    """Return the memory of features (B, D, H, W), of which each image has so many valid columns."""
    height, width = features.shape[2:]
    valid = (torch.arange(width) < torch.tensor(columns)[:, None])[:, None].expand(-1, height, -1)
    return Memory(features.flatten(2).transpose(1, 2), valid.flatten(1), (height, width))


def test_parameters_at_the_published_width() -> None:
    """11.49 M at width 512 and 97 classes. Here these are the 97 tokens that an embedding has (95 characters, end and
    start); the start is never scored, so the last layer has 96 rows.
    """
    labels = LabelSpec(charset=Charset(string.printable[:95]), max_length=25)
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in build(512, labels, hidden_dim=512).parameters())
    lstm = 2 * 4 * (512 * 512 + 512 * 512 + 2 * 512)
    attention = 512 * 512 + 9 * 512 * 512 + 512 + 512  # query, 3x3 convolution, score
    assert count == 2 * lstm + 512 * 513 + attention + 97 * 512 + 96 * (3 * 512 + 1) == 11_487_328


def test_nll_follows_the_formula() -> None:
    """Of one image with four valid columns of six, one step and one place at a time."""
    decoder, features = build(5, hidden_dim=7), torch.randn(1, 5, 2, 6)
    shown = features[0, :, :, :4]  # (D, H, W)
    with torch.no_grad():
        pooled = torch.stack([shown[:, :, column].amax(dim=1) for column in range(4)])
        summary = decoder.summary(decoder.over_columns(pooled[None])[0][0, 3])
        weight, bias = decoder.key.weight, decoder.key.bias
        keys, frames = [], []
        for row in range(2):
            for column in range(4):
                key = bias.clone()
                for down in (-1, 0, 1):
                    for right in (-1, 0, 1):
                        if 0 <= row + down < 2 and 0 <= column + right < 4:
                            key += weight[:, :, down + 1, right + 1] @ shown[:, row + down, column + right]
                keys.append(key)
                frames.append(shown[:, row, column])
        _, state = decoder.over_characters(summary[None, None])
        total, weights = torch.zeros(()), []
        for token, target in zip([decoder.start, 2, 0], [2, 0, decoder.end], strict=True):  # the text "ca"
            output, state = decoder.over_characters(decoder.embed.weight[token][None, None], state)
            query = decoder.query(output[0, 0])
            own = F.softmax(torch.stack([decoder.score.weight[0] @ torch.tanh(query + key) for key in keys]), dim=0)
            weights.append(own)
            logits = decoder.head(torch.cat([output[0, 0], own @ torch.stack(frames), summary]))
            total -= F.log_softmax(logits, dim=0)[target]
    memory, labels = of_map(features, [4]), Labels.from_texts(["ca"], LABELS.charset)
    torch.testing.assert_close(decoder.nll(memory, labels), total[None])
    aligned = decoder.alignment(memory, labels).unflatten(2, (2, 6))
    torch.testing.assert_close(aligned[0, :, :, :4].flatten(1), torch.stack(weights[:2]))
    assert not aligned[0, :, :, 4:].any()


def test_padded_columns_are_as_if_they_were_not_there() -> None:
    """The summary is taken at the last valid column, and neither the convolution nor the attention reads padding."""
    decoder, features = build(5, hidden_dim=7), torch.randn(3, 5, 2, 6)
    labels = Labels.from_texts(["ab", "c", ""], LABELS.charset)
    columns = [6, 4, 1]
    together = of_map(features, columns)
    noisy = together.with_frames(torch.where(together.valid[..., None], together.frames, 100.0))
    assert torch.equal(decoder.nll(noisy, labels), decoder.nll(together, labels))
    for beam_size in (1, 3):
        read = decoder.transcribe(together, beam_size=beam_size)
        for row, (text, width) in enumerate(zip(["ab", "c", ""], columns, strict=True)):
            alone = of_map(features[row : row + 1, :, :, :width], [width])
            torch.testing.assert_close(
                decoder.nll(alone, Labels.from_texts([text], LABELS.charset)), decoder.nll(together, labels)[row, None]
            )
            torch.testing.assert_close(
                decoder.transcribe(alone, beam_size=beam_size).log_prob, read.log_prob[row, None]
            )


class Strided(Encoder):
    """One convolution with stride 4 in both directions."""

    def __init__(self, image: ImageSpec) -> None:
        super().__init__(None, image)
        self.conv = nn.Conv2d(image.channels, 5, 4, 4)
        self.features = FeatureMapSpec(channels=5, height=image.height // 4, width=image.width // 4)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.conv(images)
        return features


def test_image_is_read_alike_whatever_the_width_it_is_padded_to() -> None:
    """Through all stages: they are built for images 24 wide, this one is 16 wide, of which 3 may be padding."""
    torch.manual_seed(0)
    image = ImageSpec(channels=1, height=8, width=24)
    rectifier, encoder = REGISTRY["rectifier"]["none"].component, Strided(image)
    bridge = FeatureMap(FeatureMap.Config(), encoder.features)
    decoder = SAR(SAR.Config(hidden_dim=7), bridge.memory, LABELS)
    recognizer = Recognizer(rectifier(rectifier.Config(), image), encoder, bridge, decoder).eval()
    labels, images = Labels.from_texts(["ab"], LABELS.charset), torch.randn(1, 1, 8, 16)
    of_16, of_13 = recognizer.nll(images, labels), recognizer.nll(images, labels, torch.tensor([13]))
    torch.testing.assert_close(of_16, of_13)  # a stride of 4: the last column of the map shows both
    padded = F.pad(images, (0, 8), value=3.0)
    torch.testing.assert_close(recognizer.nll(padded, labels, torch.tensor([16])), of_16)
    assert not torch.allclose(recognizer.nll(padded, labels), of_16)


def test_transcription_stops_when_all_texts_have_ended() -> None:
    decoder = build(5, LabelSpec(charset=Charset("abc"), max_length=50), hidden_dim=7)
    with torch.no_grad():
        decoder.head.bias[decoder.end] += 100
    steps = []
    decoder.head.register_forward_hook(lambda module, inputs, output: steps.append(output))
    for beam_size in (1, 3):
        read = decoder.transcribe(of_map(torch.randn(2, 5, 2, 6), [6, 4]), beam_size=beam_size)
        assert read.lengths.tolist() == [0, 0]
    assert len(steps) <= 1 + 50 // 10


def test_keys_and_summary_are_computed_once_per_image() -> None:
    decoder, calls = build(5, hidden_dim=7), list[tuple[str, int]]()
    for name in ("key", "over_columns"):
        getattr(decoder, name).register_forward_hook(
            lambda module, inputs, output, name=name: calls.append((name, len(inputs[0])))
        )
    for beam_size in (1, 3):
        decoder.transcribe(of_map(torch.randn(2, 5, 2, 6), [6, 4]), beam_size=beam_size)
        assert sorted(calls) == [("key", 2), ("over_columns", 2)]  # two images, whatever the beam
        calls.clear()


def test_dropout_acts_in_training_only() -> None:
    decoder, memory = build(5, hidden_dim=7, dropout=0.5), of_map(torch.randn(1, 5, 2, 6), [6])
    labels = Labels.from_texts(["ab"], LABELS.charset)
    assert torch.equal(decoder.nll(memory, labels), decoder.nll(memory, labels))
    decoder.train()
    assert not torch.equal(decoder.nll(memory, labels), decoder.nll(memory, labels))


def test_sequence_is_infeasible() -> None:
    with pytest.raises(InfeasibleError, match="sar needs a feature map with its height and width"):
        SAR(SAR.Config(), SequenceSpec(length=12, dim=5, left_to_right=True), LABELS)
