"""Augmentation of training images on the device: drawn for each image, from the seed and the step alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from decoderbench.data.resident_dataset import Batch
from decoderbench.options import AugmentationOptions
from decoderbench.seeds import derive_seed


class Augmentation:
    """Applies a random affine map, contrast, brightness and noise to each image.

    The same step of the same seed gives the same pixels with every decoder, on devices of the same kind.
    """

    def __init__(self, options: AugmentationOptions, seed: int, device: torch.device) -> None:
        self.options, self.seed = options, seed
        self._generator = torch.Generator(device)
        self._has_affine = any((options.rotate, options.shear, options.scale, options.translate))

    def __call__(self, batch: Batch, step: int) -> Batch:
        """Return a batch with augmented images (B, C, H, W) float32 in about [-1, 1], given uint8.

        Borders repeat edge pixels. The columns of a padded image follow its right edge.
        """
        self._generator.manual_seed(derive_seed(self.seed, "augmentation", step))
        options, images = self.options, batch.images
        changed, labels, columns = batch.to_float()
        if self._has_affine:
            changed, columns = self._apply_affine(changed, columns)
        if options.contrast or options.brightness:
            mean = changed.mean(dim=(1, 2, 3), keepdim=True)
            factor = 1 + self._draw(options.contrast, images)[:, None, None, None]
            shift = 2 * self._draw(options.brightness, images)[:, None, None, None]
            changed = (changed - mean) * factor + (mean + shift)
        if options.noise:
            deviation = 2 * self._draw(options.noise, images).abs()[:, None, None, None]
            noise = torch.randn(changed.shape, generator=self._generator, device=images.device)
            changed = changed + deviation * noise
        return Batch(changed, labels, columns)

    def _apply_affine(self, images: Tensor, columns: Tensor | None) -> tuple[Tensor, Tensor | None]:
        options = self.options
        _, _, height, width = images.shape
        angle = self._draw(torch.pi * options.rotate / 180, images)  # (B,), as are all draws
        shear = self._draw(options.shear, images)
        scale_x, scale_y = 1 + self._draw(options.scale, images), 1 + self._draw(options.scale, images)
        cos, sin = angle.cos(), angle.sin()
        # The source of each output pixel: rotation * shear * scale of pixels about the center, then a shift.
        x = (torch.arange(width, device=images.device) + 0.5 - width / 2)[None, None]  # (1, 1, W)
        y = (torch.arange(height, device=images.device) + 0.5 - height / 2)[None, :, None]  # (1, H, 1)
        shift_x, shift_y = (
            height * self._draw(options.translate, images),
            height * self._draw(options.translate, images),
        )
        source_x = _transform(x, y, cos * scale_x, (cos * shear - sin) * scale_y, shift_x)
        source_y = _transform(x, y, sin * scale_x, (sin * shear + cos) * scale_y, shift_y)
        # grid_sample expects both axes in [-1, 1]. F.affine_grid, which makes such grids, takes six times as long.
        grid = torch.stack([source_x * (2 / width), source_y * (2 / height)], dim=-1)  # (B, H, W, 2)
        changed = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
        if columns is None:
            return changed, None
        # A column of the output is of the image if the source of any of its pixels is.
        inside = (source_x + width / 2 < columns[:, None, None]).any(dim=1)  # (B, W)
        return changed, torch.where(inside, torch.arange(1, width + 1, device=images.device), 1).amax(dim=1)

    def _draw(self, largest: float, images: Tensor) -> Tensor:
        """Return a uniform random number in [-largest, largest] for each image, (B,)."""
        drawn = torch.rand(len(images), generator=self._generator, device=images.device)
        return (2 * drawn - 1) * largest


def _transform(x: Tensor, y: Tensor, by_x: Tensor, by_y: Tensor, shift: Tensor) -> Tensor:
    """Return by_x * x + by_y * y + shift, (B, H, W).

    `x` (1, 1, W) and `y` (1, H, 1) are coordinates; `by_x`, `by_y` and `shift` (B,) are given per image.
    """
    return by_x[:, None, None] * x + (by_y[:, None, None] * y + shift[:, None, None])
