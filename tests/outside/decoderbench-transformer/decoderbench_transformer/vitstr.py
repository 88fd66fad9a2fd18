"""A recognizer from another project: ViTSTR with a small ViT. It does not import decoderbench.

Atienza 2021, "Vision Transformer for Fast and Efficient Scene Text Recognition": the first tokens of a ViT are the
characters of the text. The classes are [GO] = 0, which is only padding, [s] = 1, the end, and the characters from 2 on.
The class token, which predicts [GO] in the original, is not scored. Patches are strips as high as the image, so that
one minute of training is enough to learn.
"""

import timm
from torch import Tensor, nn


class ViTSTR(nn.Module):
    """Images (B, C, 32, 128) to logits (B, max_length + 1, 2 + number of characters)."""

    def __init__(self, characters: str, max_length: int, channels: int = 1, width: int = 128, depth: int = 2) -> None:
        super().__init__()
        self.length = max_length + 1  # including the end
        self.vit = timm.create_model(
            "vit_tiny_patch16_224",
            pretrained=False,
            img_size=(32, 128),
            patch_size=(32, 4),
            in_chans=channels,
            embed_dim=width,
            depth=depth,
            num_heads=4,
            num_classes=0,
        )
        self.head = nn.Linear(width, 2 + len(characters))

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.vit.forward_features(images)  # (B, 1 + 32, width), the class token first
        return self.head(tokens[:, 1 : 1 + self.length])
