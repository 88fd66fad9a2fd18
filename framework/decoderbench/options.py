"""Sets of options: frozen, and a name that one does not know is an error. No torch here."""

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
    """Pixels; with resize = keep the largest width that an image may have."""

    channels: Literal[1, 3] = 1
    """1 for gray, 3 for RGB."""

    resize: Literal["stretch", "pad", "keep"] = "stretch"
    """stretch: to the size, whatever the shape. pad: to the height, then the last column repeated to the right.
    keep: to the height, and as wide as its shape says; what would be wider than width is squeezed. A batch then holds
    images of one bucket, each padded to the widest of it, and T follows that width."""

    buckets: int = Field(default=8, ge=1, le=64)
    """With resize = keep, into how many buckets of similar width the images are parted; about as many in each."""


class AugmentationOptions(Options):
    """Random changes to training images, drawn for each image anew; all off by default."""

    rotate: float = Field(default=0.0, ge=0, le=180)
    """Largest rotation to either side, degrees."""

    shear: float = Field(default=0.0, ge=0, le=1)
    """Largest horizontal shear to either side, as a share of the height."""

    scale: float = Field(default=0.0, ge=0, lt=1)
    """Largest change of size, as a share, drawn for each axis."""

    translate: float = Field(default=0.0, ge=0, le=1)
    """Largest shift to either side, as a share of the height, drawn for each axis."""

    contrast: float = Field(default=0.0, ge=0, le=1)
    """Largest change of contrast, as a share."""

    brightness: float = Field(default=0.0, ge=0, le=1)
    """Largest change of brightness, as a share of the range from black to white."""

    noise: float = Field(default=0.0, ge=0, le=1)
    """Largest standard deviation of Gaussian noise, as a share of the range from black to white."""


class TrainingOptions(Options):
    """How every cell is trained. The budget is counted in steps, the same for all."""

    steps: int = Field(default=2000, ge=1)
    """Optimizer steps."""

    batch_size: int = Field(default=64, ge=1)
    """Images a step."""

    learning_rate: float = Field(default=2e-3, gt=0)
    """Peak learning rate of AdamW, reached after the warm-up and then lowered to zero along a cosine."""

    warmup_steps: int = Field(default=100, ge=0)
    """Steps in which the learning rate rises from zero."""

    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled weight decay of AdamW, on weights of two or more dimensions."""

    clip_norm: float = Field(default=5.0, gt=0)
    """Largest norm of the gradient; a larger one is scaled down to it."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of all but the decoder; auto is bfloat16 where the hardware has it. Decoders get float32."""

    validate_every: int | None = Field(default=None, ge=1)
    """Steps between two validations; a tenth of all steps if left out."""

    keep: Literal["best", "last"] = "best"
    """Which weights are tested: the best on the validation split (exact match, then nats), or the last."""


class EvaluationOptions(Options):
    """How transcriptions are made and timed."""

    batch_size: int = Field(default=256, ge=1)
    """Images a batch."""

    beam_size: int = Field(default=1, ge=1)
    """Width of the beam; one is best path for CTC and greedy for the others."""
