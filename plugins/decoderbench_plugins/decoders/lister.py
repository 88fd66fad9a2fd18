"""LISTER: from each place of the image to the next character's place, whatever the number of characters.

Cheng et al. 2023, "LISTER: Neighbor Decoding for Length-Insensitive Scene Text Recognition". A map of places says where
the first character is; a matrix says for each place where the character after it is, or that the text ends; map after
map follows by a product with the matrix. No character depends on another, and no layer on the length.

    "LISTER" = { use = "lister" }

Where it differs from the paper: without the feature enhancement module, which belongs to an encoder. The paper ends a
text where the end has more than .6 of the mass of a map; here the head gives the end a probability, as it does to each
character, so that the probabilities of all texts sum to 1, and a text ends where the end is the most probable. With
`sharpen`, nll is that of the sharpened maps, while training minimizes a loss of maps that are not sharpened, as in the
paper. A frame that shows only padding is no place. Frames are normalized here, because scores grow with the square of
their scale; the paper's encoder does it. Initial weights are torch's defaults: with the authors', which are smaller, it
learned more slowly (results/LOG.md, 2026-11-29).
"""

from typing import final

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from decoderbench import (
    ComponentConfig,
    InfeasibleError,
    Labels,
    LabelSpec,
    Memory,
    PerCharacterDecoder,
    SequenceSpec,
    hookimpl,
    smoothed_text_nll,
)

SMALL = 1e-10  # keeps logarithms of masses finite


@final
class Lister(PerCharacterDecoder):
    """Maps over the frames and a learned end, each from the one before by one matrix of neighbors."""

    name = "lister"

    class Config(ComponentConfig):
        """Options of `lister`."""

        sharpen: bool = True
        """Sharpen the map of step s before the next step, as in the paper: mass x becomes exp(k x) - 1, normalized,
        with k = min(1 + 2 s, 16). Never in training."""

        end_weight: float = Field(default=0.01, ge=0)
        """Weight of the loss of the end: -log of the mass that the last map of a text gives to it."""

        entropy_weight: float = Field(default=0.001, ge=0)
        """Weight of the mean entropy of the maps of a text, each as a share of that of a uniform map."""

    def __init__(self, config: Config, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        if memory.dim == 1:
            raise InfeasibleError(
                f"{self.name} normalizes frames, so their width must be more than 1; this memory has D = 1; use a "
                f"wider bridge"
            )
        self.options, self.dim = config, memory.dim
        self.norm = nn.LayerNorm(memory.dim)
        self.end_place = nn.Parameter(nn.init.trunc_normal_(torch.empty(memory.dim), std=0.02))
        self.query = nn.Linear(memory.dim, memory.dim)
        self.key = nn.Linear(memory.dim, memory.dim)
        self.neighbor = nn.Bilinear(memory.dim, memory.dim, 1)
        self.head = nn.Linear(memory.dim, self.vocabulary_size)

    def log_probs(self, memory: Memory) -> Tensor:
        maps, places = self.maps(memory, self.num_positions, sharpen=self.options.sharpen)
        return self._score(maps, places)

    def loss(self, memory: Memory | Tensor, labels: Labels) -> Tensor:
        """Return the cross entropy of each text, plus its number of characters and end times both other losses, (B,).

        The other losses weigh as in the paper, where all three are means: of characters, of texts and of texts.
        """
        memory = Memory.of(memory)
        maps, places = self.maps(memory, labels.longest + 1, sharpen=False)
        last = labels.lengths[:, None]
        of_end = -(maps[:, :, -1].gather(1, last).squeeze(1) + SMALL).log()  # (B,)
        largest = (memory.valid.sum(dim=1) + 2).log()  # the paper adds one to the number of places
        entropies = -(maps * (maps + SMALL).log()).sum(dim=2) / largest[:, None]  # (B, S)
        counted = torch.arange(labels.longest + 1, device=memory.device) <= last
        return (
            smoothed_text_nll(self._score(maps, places), labels, 0.0)
            + self.options.end_weight * (labels.lengths + 1) * of_end
            + self.options.entropy_weight * torch.where(counted, entropies, 0.0).sum(dim=1)
        )

    def alignment(self, memory: Memory | Tensor, labels: Labels) -> Tensor:
        """Return the maps of the characters of each text without the mass of the end, (B, S, T)."""
        memory = Memory.of(memory)
        maps, _ = self.maps(memory, labels.longest + 1, sharpen=self.options.sharpen)
        weights = maps[:, : labels.longest, :-1] + memory.valid[:, None] * torch.finfo(maps.dtype).tiny
        return weights / weights.sum(dim=2, keepdim=True)

    def maps(self, memory: Memory, steps: int, *, sharpen: bool) -> tuple[Tensor, Tensor]:
        """Return the maps (B, steps, T + 1), and the places (B, T + 1, D) that they weigh, the end last."""
        frames = torch.where(memory.valid[:, :, None], self.norm(memory.frames), 0.0)
        mean = frames.sum(dim=1, keepdim=True) / memory.valid.sum(dim=1)[:, None, None]
        places = torch.cat([frames, self.end_place.expand(memory.batch, 1, -1)], dim=1)  # (B, T + 1, D)
        keys = self.key(places).transpose(1, 2) / self.dim**0.5
        exists = F.pad(memory.valid, (0, 1), value=True)[:, None]  # (B, 1, T + 1)
        first = torch.where(exists, self.query(mean) @ keys, float("-inf")).softmax(dim=2)  # (B, 1, T + 1)
        scores = (self.query(frames) @ self.neighbor.weight[0]) @ keys + self.neighbor.bias
        neighbors = torch.where(exists, scores, float("-inf")).softmax(dim=2)  # (B, T, T + 1)
        at_end = F.pad(torch.zeros_like(first[:, :, 1:]), (0, 1), value=1.0)  # after the end comes the end
        neighbors = torch.cat([neighbors, at_end], dim=1)  # (B, T + 1, T + 1)
        maps = [first]
        for step in range(steps - 1):
            before = _sharpened(maps[-1], min(1 + 2 * step, 16)) if sharpen else maps[-1]
            maps.append(before @ neighbors)
        return torch.cat(maps, dim=1), places

    def _score(self, maps: Tensor, places: Tensor) -> Tensor:
        """Return the log probabilities of the characters that the maps read, (B, S, V)."""
        logits: Tensor = self.head(maps @ places)
        return logits.float().log_softmax(dim=2)


def _sharpened(masses: Tensor, factor: int) -> Tensor:
    grown = (factor * masses).expm1()
    return grown / grown.sum(dim=2, keepdim=True)


@hookimpl
def register_decoders() -> list[type[Lister]]:
    """Register the decoder of this file."""
    return [Lister]
