"""The base of every set of options: frozen, and a name that it does not know is an error. No torch here."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Options(BaseModel):
    """Immutable options; unknown names are refused. The docstring under a field is its description."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, validate_default=True
    )


class ComponentConfig(Options):
    """Options of a component. Give each a default and a docstring: `decoderbench plugins` prints both."""


class ImageOptions(Options):
    """The size to which every image is brought before it enters a cell."""

    height: int = Field(default=32, ge=1, le=4096)
    """Pixels."""

    width: int = Field(default=128, ge=1, le=16384)
    """Pixels."""

    channels: Literal[1, 3] = 1
    """1 for grey, 3 for RGB."""

    resize: Literal["stretch", "pad"] = "stretch"
    """stretch: to the size, whatever the shape. pad: to the height, then the last column repeated to the right."""
