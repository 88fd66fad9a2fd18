"""Random changes to training images: drawn for each image, on the device, from (seed, step) alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from decoderbench.batches import to_float
from decoderbench.cell import derive_seed
from decoderbench.experiment import AugmentationOptions


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
        # Rotation * shear * scale in pixels; grid_sample wants both axes to run from -1 to 1, hence the aspect.
        aspect = height / width
        x_row = torch.stack(
            [
                cos * scale_x,
                (cos * shear - sin) * scale_y * aspect,
                2 * aspect * self._draw(options.translate, images),
            ],
            dim=1,
        )
        y_row = torch.stack(
            [sin * scale_x / aspect, (sin * shear + cos) * scale_y, 2 * self._draw(options.translate, images)],
            dim=1,
        )
        grid = F.affine_grid(torch.stack([x_row, y_row], dim=1), list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, padding_mode="border", align_corners=False)

    def _draw(self, largest: float, images: Tensor) -> Tensor:
        """Return a number in [-largest, largest] for each image, (B,)."""
        drawn = torch.rand(len(images), generator=self._generator, device=images.device)
        return (2 * drawn - 1) * largest
