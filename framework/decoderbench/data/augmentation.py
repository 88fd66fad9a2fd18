"""Random changes to training images: drawn for each image, on the device, from (seed, step) alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from decoderbench.data.resident_dataset import to_float
from decoderbench.options import AugmentationOptions
from decoderbench.seeds import derive_seed


class Augmentation:
    """Affine map, contrast, brightness and noise.

    The same step of the same seed gives the same pixels under every decoder, on devices of one kind.
    """

    def __init__(self, options: AugmentationOptions, seed: int, device: torch.device) -> None:
        self.options, self.seed = options, seed
        self._generator = torch.Generator(device)
        self._moves = any((options.rotate, options.shear, options.scale, options.translate))

    def __call__(self, images: Tensor, step: int) -> Tensor:
        """Return images (B, C, H, W) uint8 as changed float32 in about [-1, 1]; edges are repeated outwards."""
        self._generator.manual_seed(derive_seed(self.seed, "augmentation", step))
        options, changed = self.options, to_float(images)
        if self._moves:
            changed = self._move(changed)
        if options.contrast or options.brightness:
            mean = changed.mean(dim=(1, 2, 3), keepdim=True)
            factor = 1 + self._draw(options.contrast, images)[:, None, None, None]
            shift = 2 * self._draw(options.brightness, images)[:, None, None, None]
            changed = (changed - mean) * factor + (mean + shift)
        if options.noise:
            deviation = 2 * self._draw(options.noise, images).abs()[:, None, None, None]
            noise = torch.randn(changed.shape, generator=self._generator, device=images.device)
            changed = changed + deviation * noise
        return changed

    def _move(self, images: Tensor) -> Tensor:
        options = self.options
        _, _, height, width = images.shape
        angle = self._draw(torch.pi * options.rotate / 180, images)  # (B,), as all draws
        shear = self._draw(options.shear, images)
        scale_x, scale_y = 1 + self._draw(options.scale, images), 1 + self._draw(options.scale, images)
        cos, sin = angle.cos(), angle.sin()
        # Where each output pixel comes from: rotation * shear * scale of pixels about the middle, then a shift.
        x = (torch.arange(width, device=images.device) + 0.5 - width / 2)[None, None]  # (1, 1, W)
        y = (torch.arange(height, device=images.device) + 0.5 - height / 2)[None, :, None]  # (1, H, 1)
        shift_x, shift_y = (
            height * self._draw(options.translate, images),
            height * self._draw(options.translate, images),
        )
        source_x = _affine(x, y, cos * scale_x, (cos * shear - sin) * scale_y, shift_x)
        source_y = _affine(x, y, sin * scale_x, (sin * shear + cos) * scale_y, shift_y)
        # grid_sample lets both axes run from -1 to 1. Its companion affine_grid takes six times as long as it does.
        grid = torch.stack([source_x * (2 / width), source_y * (2 / height)], dim=-1)  # (B, H, W, 2)
        return F.grid_sample(images, grid, padding_mode="border", align_corners=False)

    def _draw(self, largest: float, images: Tensor) -> Tensor:
        """Return a number in [-largest, largest] for each image, (B,)."""
        drawn = torch.rand(len(images), generator=self._generator, device=images.device)
        return (2 * drawn - 1) * largest


def _affine(x: Tensor, y: Tensor, by_x: Tensor, by_y: Tensor, shift: Tensor) -> Tensor:
    """Return by_x * x + by_y * y + shift, (B, H, W), of coordinates and a factor of each for each image, (B,)."""
    return by_x[:, None, None] * x + (by_y[:, None, None] * y + shift[:, None, None])
