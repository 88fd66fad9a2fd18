"""TPS: a thin plate spline warps the image so that two rows of predicted points become its upper and lower edge.

Shi et al. 2016, "Robust Scene Text Recognition with Automatic Rectification" (RARE); Jaderberg et al. 2015, "Spatial
Transformer Networks"; Bookstein 1989, "Principal Warps". Sizes as in Baek et al. 2019, "What Is Wrong With Scene Text
Recognition Model Comparisons?".
"""

from contextlib import AbstractContextManager, nullcontext
from typing import final

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from decoderbench import ComponentConfig, ImageSpec, Rectifier, hookimpl


@final
class TPS(Rectifier):
    """A small CNN predicts the points. All images must have one size, which is kept; weights do not depend on it."""

    name = "tps"
    exports = True

    class Config(ComponentConfig):
        """Options of `tps`."""

        num_fiducials: int = Field(default=20, ge=4, multiple_of=2)
        """Number of predicted points, half of them on the upper edge and half on the lower."""

        output_channels: int = Field(default=512, ge=8, multiple_of=8)
        """Channels of the last convolution. Earlier convolutions have 1/8, 1/4 and 1/2 as many, the hidden linear layer
        1/2."""

    spline: Tensor

    def __init__(self, config: Config, image: ImageSpec) -> None:
        super().__init__(config, image)
        image.require_size(height=8, width=8, by="rectifier tps")
        self.image = image
        full = config.output_channels
        eighth, quarter, half = full // 8, full // 4, full // 2
        self.trunk = nn.Sequential(
            *_conv(image.channels, eighth),
            nn.MaxPool2d(2),
            *_conv(eighth, quarter),
            nn.MaxPool2d(2),
            *_conv(quarter, half),
            nn.MaxPool2d(2),
            *_conv(half, full),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),  # (B, C)
        )
        self.hidden = nn.Linear(full, half)
        self.fiducials = nn.Linear(half, 2 * config.num_fiducials)
        self.apply(_initialize)
        with torch.no_grad():
            self.fiducials.weight.zero_()
            self.fiducials.bias.copy_(_initial_points(config.num_fiducials).flatten())
        # Not saved, because it depends on the size of the images: saved weights fit images of every size.
        self.register_buffer("spline", _spline(image, _edges(config.num_fiducials)), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        batch, _, height, width = images.shape
        if (height, width) != (self.image.height, self.image.width):
            raise ValueError(
                f"rectifier tps needs images of one size: it was built for {self.image.height}x{self.image.width} "
                f"(height x width), given {height}x{width}; resize all images to one size"
            )
        features = self.trunk(images)
        with _without_autocast(images.device.type):  # bfloat16 would round coordinates by fractions of a pixel
            fiducials = self.fiducials(self.hidden(features.float()).relu()).view(batch, -1, 2)
            coordinates = (self.spline @ fiducials).view(batch, height, width, 2)
            return F.grid_sample(images.float(), coordinates, padding_mode="border", align_corners=True)


def _conv(in_channels: int, out_channels: int) -> list[nn.Module]:
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]


def _initialize(module: nn.Module) -> None:
    """Initialize weights after He et al. 2015."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _edges(num_fiducials: int) -> Tensor:
    """Return points (x, y), evenly along the upper edge, then the lower, (F, 2); the image spans [-1, 1]."""
    x = torch.linspace(-1, 1, num_fiducials // 2)
    return torch.cat([torch.stack([x, torch.full_like(x, y)], dim=1) for y in (-1, 1)])


def _initial_points(num_fiducials: int) -> Tensor:
    """Return the points predicted before training, (F, 2): a strip that rises to the right (RARE, figure 6a)."""
    points = _edges(num_fiducials)
    fall = torch.linspace(0, 1, num_fiducials // 2)
    return torch.stack([points[:, 0], torch.cat([-fall, 1 - fall])], dim=1)


def _spline(image: ImageSpec, knots: Tensor) -> Tensor:
    """Return weights (H * W, F): the position that a pixel is read from, as a weighted sum of the fiducials (F, 2).

    The spline maps each of the knots (F, 2) to its fiducial. It is linear in the fiducials, so everything that depends
    on the knots is computed once, in double precision.
    """
    knots = knots.double()
    count = len(knots)

    def basis(points: Tensor) -> Tensor:
        squares = (points[:, None] - knots).square().sum(dim=2)  # (N, F)
        kernel = torch.xlogy(squares, squares) / 2  # r^2 log r, 0 at r = 0
        return torch.cat([kernel, torch.ones_like(points[:, :1]), points], dim=1)  # (N, F + 3)

    at_knots = basis(knots)  # (F, F + 3)
    no_moments = torch.cat([at_knots[:, count:].T, at_knots.new_zeros(3, 3)], dim=1)  # kernels have no affine part
    inverse = torch.linalg.inv(torch.cat([at_knots, no_moments]))[:, :count]  # (F + 3, F)
    y, x = (torch.linspace(-1, 1, size, dtype=torch.float64) for size in (image.height, image.width))
    pixels = torch.cartesian_prod(y, x).flip(1)  # (H * W, 2)
    spline: Tensor = (basis(pixels) @ inverse).float()
    return spline


def _without_autocast(device_type: str) -> AbstractContextManager[object]:
    """Return a context without autocast; devices without autocast, such as meta, need none."""
    available = torch.amp.is_autocast_available(device_type)
    return torch.autocast(device_type, enabled=False) if available else nullcontext()


@hookimpl
def register_rectifiers() -> list[type[TPS]]:
    """Register `tps`."""
    return [TPS]
