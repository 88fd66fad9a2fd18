"""The bridge family: a leaf turns a feature map into frames, the family adds a projection and LSTM layers."""

from abc import abstractmethod
from dataclasses import replace
from typing import Any

from pydantic import Field
from torch import Tensor, nn

from decoderbench.model.stages import Bridge
from decoderbench.options import ComponentConfig
from decoderbench.specs import FeatureMapSpec, SequenceSpec


class SequenceConfig(ComponentConfig):
    """Options of every bridge of the family."""

    projection_dim: int | None = Field(default=None, ge=1)
    """Width of a linear layer applied to each frame; no such layer if not set."""

    lstm_layers: int = Field(default=0, ge=0)
    """Number of bidirectional LSTM layers over the frames, after the projection (Shi et al. 2015, CRNN)."""

    lstm_dim: int = Field(default=256, ge=1)
    """Hidden width of each direction of the LSTM; frames become twice as wide."""


class SequenceBridge(Bridge):
    """Frames, then an optional linear projection, then an optional stack of bidirectional LSTM layers.

    The leaf writes `frames_of`, the spec of its frames, and `to_frames`, which computes them.
    """

    Config = SequenceConfig

    def __init__(self, config: Any, features: FeatureMapSpec) -> None:
        super().__init__(config, features)
        frames = self.frames_of(features)
        dim = frames.dim
        self.projection: nn.Module = nn.Identity()
        if config.projection_dim is not None:
            self.projection = nn.Linear(dim, config.projection_dim)
            dim = config.projection_dim
        self.lstm: nn.LSTM | None = None
        if config.lstm_layers:
            self.lstm = nn.LSTM(dim, config.lstm_dim, config.lstm_layers, batch_first=True, bidirectional=True)
            dim = 2 * config.lstm_dim
        self.memory = replace(frames, dim=dim)

    @staticmethod
    @abstractmethod
    def frames_of(features: FeatureMapSpec) -> SequenceSpec:
        """Return the spec of the frames that `to_frames` returns for a feature map."""

    @staticmethod
    @abstractmethod
    def to_frames(features: Tensor) -> Tensor:
        """Return frames (B, T, D) of features (B, C, H, W)."""

    def forward(self, features: Tensor) -> Tensor:
        """Return the memory (B, T, D) of features (B, C, H, W)."""
        memory: Tensor = self.projection(self.to_frames(features))  # (B, T, D)
        if self.lstm is not None:
            memory, _ = self.lstm(memory)
        return memory
