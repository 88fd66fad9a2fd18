"""Sets of options: immutable, and strict about unknown names. No torch here."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from decoderbench.identity import NotDecisive


class Options(BaseModel):
    """Immutable options; an unknown name is an error. The docstring under a field is its description."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, validate_default=True
    )

    @model_validator(mode="wrap")
    @classmethod
    def _refuse_converted_values(cls, given: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        options = validate(given)  # a validator of all fields would exclude discriminated unions
        typed = given if isinstance(given, Mapping) else {}
        rules = {name: _broken_rule(value, getattr(options, name, None)) for name, value in typed.items()}
        refuse({(name,): rule for name, rule in rules.items() if rule}, typed, cls.__name__)
        return options


def refuse(rules: Mapping[tuple[str | int, ...], str], given: Mapping[Any, Any], title: str) -> None:
    """Raise `ValidationError` with the broken rule of each place in a table, if there is one; in a validator only."""
    if rules:
        raise ValidationError.from_exception_data(
            title,
            [
                {
                    "type": PydanticCustomError("broken_rule", "{rule}", {"rule": rule}),
                    "loc": at,
                    "input": given.get(at[0], {}),
                }
                for at, rule in rules.items()
            ],
        )


def _broken_rule(given: Any, value: Any) -> str:
    """Return what is wrong with a value that pydantic converted: text to a number, for example; also within a list."""
    if isinstance(given, list | tuple) and isinstance(value, list | tuple) and len(given) == len(value):
        return next(filter(None, map(_broken_rule, given, value)), "")
    if type(value) in (int, float) and isinstance(given, bool | str):
        return f"must be a number, not {'text' if isinstance(given, str) else 'true or false'}"
    if isinstance(value, bool) and isinstance(given, int | float | str) and not isinstance(given, bool):
        return f"must be true or false, not {'text' if isinstance(given, str) else 'a number'}"
    return ""


Stage = Literal["rectifier", "encoder", "bridge", "decoder"]
"""The stages of a recognizer, in the order of the data flow."""


class ComponentConfig(Options):
    """Options of a component. Give each option a default and a docstring: `decoderbench plugins` prints both."""


class ImageOptions(Options):
    """The size that every image is resized to before it enters a cell."""

    height: int = Field(default=32, ge=1, le=4096)
    """Height in pixels."""

    width: int = Field(default=128, ge=1, le=16384)
    """Width in pixels; with resize = keep, the largest width of an image."""

    channels: Literal[1, 3] = 1
    """1 for gray, 3 for RGB."""

    resize: Literal["stretch", "pad", "keep"] = "stretch"
    """stretch: resize to `height` x `width`, ignore the aspect ratio. pad: resize to `height`, keep the aspect ratio,
    repeat the last column up to `width`. keep: the same without the padding. With pad and keep, images that would
    exceed `width` are squeezed to it. With keep, a batch holds images of one bucket, each padded to the width of the
    bucket, and T follows that width."""

    buckets: int = Field(default=8, ge=1, le=64)
    """With resize = keep, the largest number of buckets: groups of about equally many images of similar width."""


class AugmentationOptions(Options):
    """Random changes to training images, drawn independently for each image; all off by default."""

    rotate: float = Field(default=0.0, ge=0, le=180)
    """Largest rotation in either direction, in degrees."""

    shear: float = Field(default=0.0, ge=0, le=1)
    """Largest horizontal shear in either direction, as a fraction of the height."""

    scale: float = Field(default=0.0, ge=0, lt=1)
    """Largest relative change of size, drawn separately for each axis."""

    translate: float = Field(default=0.0, ge=0, le=1)
    """Largest shift in either direction, as a fraction of the height, drawn separately for each axis."""

    contrast: float = Field(default=0.0, ge=0, le=1)
    """Largest relative change of contrast."""

    brightness: float = Field(default=0.0, ge=0, le=1)
    """Largest change of brightness, as a fraction of the range from black to white."""

    noise: float = Field(default=0.0, ge=0, le=1)
    """Largest standard deviation of Gaussian noise, as a fraction of the range from black to white."""


class LearningRateFactors(Options):
    """The learning rate of each stage, relative to that of the training."""

    rectifier: float = Field(default=1.0, gt=0)
    """Factor of the rectifier."""

    encoder: float = Field(default=1.0, gt=0)
    """Factor of the encoder."""

    bridge: float = Field(default=1.0, gt=0)
    """Factor of the bridge."""

    decoder: float = Field(default=1.0, gt=0)
    """Factor of the decoder."""

    def of(self, stage: Stage) -> float:
        """Return the factor of a stage."""
        factor: float = getattr(self, stage)
        return factor


class TrainingOptions(Options):
    """How every cell is trained. The budget is a number of optimizer steps, the same for all cells."""

    steps: int = Field(default=2000, ge=1)
    """Optimizer steps."""

    batch_size: int = Field(default=64, ge=1)
    """Images per step."""

    learning_rate: float = Field(default=2e-3, gt=0)
    """Peak learning rate of AdamW, reached after the warm-up, then decayed to zero along a cosine."""

    warmup_steps: int = Field(default=100, ge=0)
    """Steps over which the learning rate rises linearly from zero."""

    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled weight decay of AdamW, for weights with two or more dimensions."""

    clip_norm: float = Field(default=5.0, gt=0)
    """Largest norm of the gradient; gradients with a larger norm are scaled down to it."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of all stages but the decoder, which always runs in float32; auto is bfloat16 where the hardware
    supports it, else float32. On CUDA, float32 is computed without TF32, and recurrent layers always run in float32."""

    validate_every: int | None = Field(default=None, ge=1)
    """Steps between validations; a tenth of all steps if not set. There is always one after nine tenths of the steps,
    and one at the end."""

    start_from: Annotated[str | None, NotDecisive()] = None
    """A pack, as `decoderbench pack` writes it, whose weights the cells start from: of the stages that are the same
    components with the same options, all tensors that fit, and of those whose size follows the charset the rows of
    common characters. If it is a folder of packs, as `pack --every-row` writes it, each row starts from the one that
    has all its stages with their options. Relative to the folder of the experiment file. What the pack holds is part of
    a cell's identity, its path is not."""

    freeze: tuple[Stage, ...] = ()
    """Stages that are not trained: rectifier, encoder, bridge, decoder. Their weights and the statistics of their
    normalization stay as they start."""

    learning_rate_factors: LearningRateFactors = LearningRateFactors()
    """Factors by which the learning rate of a stage differs from `learning_rate`, as in { encoder = 0.1 }."""

    ema_decay: float = Field(default=0.0, ge=0, lt=1)
    """Decay of an exponential moving average of the weights, as in 0.99: the average over about 1 / (1 - decay) steps
    is validated and tested in place of the weights. 0 for none. It is smaller in the first steps."""

    keep: Literal["best", "last"] = "best"
    """Which weights are tested: the best on the validation split (by exact match, then by nats per character), or the
    last."""

    @model_validator(mode="after")
    def _refuse_to_freeze_all(self) -> Self:
        rules: dict[tuple[str | int, ...], str] = {}
        if len(set(self.freeze)) == len(get_args(Stage)):
            rules["freeze",] = "names all stages, so nothing would be trained; leave one out"
        for stage in self.freeze:
            if self.learning_rate_factors.of(stage) != 1:
                rules["learning_rate_factors", stage] = f"the {stage} is frozen; remove one of the two"
        refuse(rules, {}, "TrainingOptions")
        return self

    @property
    def nine_tenths(self) -> int:
        """The step whose validation tells, compared with the last one, whether a cell was still learning."""
        return round(0.9 * self.steps)


class EvaluationOptions(Options):
    """How images are transcribed and timed."""

    batch_size: int = Field(default=256, ge=1)
    """Images per batch."""

    beam_size: int = Field(default=1, ge=1)
    """Width of the beam; 1 means best path decoding for CTC, greedy decoding for autoregressive decoders, and for those
    that predict all characters at once the text up to the first end."""
