"""Any CNN of timm up to a chosen stage, optionally with a limit on the reduction of the width.

Wightman 2019, "PyTorch Image Models". The stride (2, 1) of later layers follows Shi et al. 2015 (CRNN).
"""

import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, final

import torch
from pydantic import Field
from torch import Tensor, nn

from decoderbench import (
    ComponentConfig,
    ConfigError,
    Encoder,
    FirstWeights,
    ImageSpec,
    InfeasibleError,
    UnknownNameError,
    did_you_mean,
    hookimpl,
    limit_width_reduction,
    probe_features,
)


@final
class TimmCNN(Encoder):
    """The feature map of one stage of a timm model, without the layers of later stages.

    The model has as many input channels (timm's `in_chans`) as the images, set by `[image] channels`: 1 gray, 3 RGB.
    """

    name = "timm_cnn"
    exports = True

    class Config(ComponentConfig):
        """Options of `timm_cnn`."""

        model: str = "resnet18"
        """Name of a timm model, as listed by `timm.list_models()`."""

        stage: int = Field(default=2, ge=0)
        """Feature map to use: an index into the model's `feature_info`. In most models, stage i reduces the image by
        2^(i+1), so stage 2 reduces it by 8. If the first stage reduces by 4 (ConvNeXt), stage 1 reduces by 8."""

        pretrained: Annotated[bool, FirstWeights(none=False)] = False
        """Start from the weights that timm publishes for the model; they are downloaded and cached on first use."""

        keep_width: Literal[0, 1, 2, 4, 8, 16, 32] = 0
        """Largest reduction of the width; 0 sets no limit. Beyond it, strides (2, 2) become (2, 1). With 4, an image of
        width 128 gives 32 columns at every later stage."""

    def __init__(self, config: Config, image: ImageSpec) -> None:
        super().__init__(config, image)
        self.network = _build(config, image)
        self._channels_last = getattr(self.network, "output_fmt", "NCHW") == "NHWC"
        try:
            if config.keep_width:
                limit_width_reduction(self, image, config.keep_width)
            self.features = probe_features(self, image)
        except InfeasibleError as error:
            raise InfeasibleError(
                f"timm model {config.model!r} cannot have keep_width = {config.keep_width}: {error}; "
                f"choose another model or an earlier stage, or omit keep_width"
            ) from error
        except Exception as error:
            raise InfeasibleError(
                f"timm model {config.model!r} cannot read images of {image.height}x{image.width} (height x width) "
                f"up to stage {config.stage}: {_first_line(error)}; {_advise_on_size(config, image)}"
            ) from error

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor
        (features,) = self.network(images)
        return features.permute(0, 3, 1, 2) if self._channels_last else features


def _build(config: TimmCNN.Config, image: ImageSpec) -> nn.Module:
    """Return timm's feature extractor for one stage, on the default device; check the options first."""
    import timm  # takes seconds, which listing the plugins should not

    _check_name(config)
    create: Callable[..., Any] = partial(timm.create_model, config.model, features_only=True, in_chans=image.channels)
    pretrained = config.pretrained and torch.get_default_device().type != "meta"
    try:
        network: nn.Module = create(out_indices=(config.stage,), pretrained=pretrained)
    except Exception as error:
        _check_stage(config, create)  # an error in the stage is reported before an error in the weights
        if not pretrained:
            raise
        raise ConfigError(
            [
                f"weights of timm model {config.model!r} cannot be loaded: {_first_line(error)}; connect to the "
                f"internet once, so they are cached, or set pretrained = false"
            ]
        ) from error
    _drop_later_blocks(network)
    return network


def _check_name(config: TimmCNN.Config) -> None:
    """Raise if the name is none of a model that timm defines, with weights if they are asked for."""
    import timm

    source, _, repository = config.model.rpartition(":")
    if source or "/" in repository:
        raise UnknownNameError(
            f"timm model {config.model!r} is the address of a repository or a folder, whose model can change; give the "
            f"name of a model of timm itself, as in {_nearest_model(repository)!r}, and pretrained = true for its "
            f"weights"
        )
    name, _, tag = config.model.partition(".")
    if not timm.is_model(name):
        raise UnknownNameError(
            f"unknown timm model {config.model!r}{did_you_mean(name, timm.list_models())}; "
            f"timm.list_models() lists all names"
        )
    tags = [known.partition(".")[2] for known in timm.models.get_arch_pretrained_cfgs(name)]
    if tag and tag not in tags:
        known = f"tags: {', '.join(filter(None, tags))}" if any(tags) else f"it has no tags; use {name!r}"
        raise UnknownNameError(f"timm model {name!r} has no weights of tag {tag!r}{did_you_mean(tag, tags)}; {known}")
    if config.pretrained and not timm.is_model_pretrained(config.model):
        others = timm.list_pretrained(f"{name}.*")
        move = f"choose one of {', '.join(others)}, or " if others else ""
        raise ConfigError([f"timm publishes no weights for timm model {config.model!r}; {move}set pretrained = false"])


def _nearest_model(repository: str) -> str:
    """Return the model of timm whose name is nearest to that of a repository or a folder."""
    import timm

    name = repository.rpartition("/")[2]
    if timm.is_model(name):
        return name
    return next(iter(get_close_matches(name.partition(".")[0], timm.list_models(), n=1)), "resnet18")


def _advise_on_size(config: TimmCNN.Config, image: ImageSpec) -> str:
    """Return what to do about a model that cannot read images of a size: some read a single size."""
    from timm.models import get_pretrained_cfg

    settings = get_pretrained_cfg(config.model)
    height, width = settings.input_size[1:] if settings else (image.height, image.width)
    if not _reads(config, ImageSpec(channels=image.channels, height=height, width=width)):
        return "choose an earlier stage, larger images or another model"
    if _reads(config, ImageSpec(channels=image.channels, height=height, width=2 * width)):
        return f"choose an earlier stage, larger images ({height}x{width} works) or another model"
    return (
        f"it reads images of {height}x{width} only, as vision transformers do; choose a CNN, such as resnet18 or "
        f"convnext_atto, or set image.height = {height} and image.width = {width}"
    )


def _reads(config: TimmCNN.Config, image: ImageSpec) -> bool:
    """Return whether a model reads images of a size, unchanged."""
    try:
        with torch.device("meta"), torch.no_grad():
            _build(config, image).eval()(torch.empty(1, image.channels, image.height, image.width))
    except Exception:  # noqa: BLE001 - models raise anything for sizes that they cannot read
        return False
    return True


def _check_stage(config: TimmCNN.Config, create: Callable[..., Any]) -> None:
    """Raise `ConfigError` if the model has no feature map of this stage."""
    try:
        with torch.device("meta"):
            create(out_indices=(config.stage,))
    except Exception as error:
        problem = f"has no feature map of stage {config.stage}: {_first_line(error)}; choose another stage or model"
        with suppress(Exception), torch.device("meta"):
            stages = create(out_indices=(0,)).feature_info.info
            if config.stage >= len(stages):
                offered = ", ".join(f"{index} (reduction {stage['reduction']})" for index, stage in enumerate(stages))
                problem = f"has no stage {config.stage}; choose one of {offered}"
        raise ConfigError([f"timm model {config.model!r} {problem}"]) from error


def _drop_later_blocks(network: Any) -> None:
    """Delete the blocks after the chosen stage, which timm's EfficientNets and MobileNets keep and run."""
    if isinstance(getattr(network, "blocks", None), nn.Sequential):
        (info,) = network.feature_info.get_dicts()
        del network.blocks[info["stage"] :]


def _first_line(error: Exception) -> str:
    """Return the first line of an error, or the line of timm that raised it: some assertions have no message."""
    raised = [frame.line for frame in traceback.extract_tb(error.__traceback__) if "timm" in Path(frame.filename).parts]
    return str(error).partition("\n")[0] or (raised and raised[-1]) or type(error).__name__


@hookimpl
def register_encoders() -> Iterable[type[Encoder]]:
    """Register `timm_cnn`."""
    return [TimmCNN]
