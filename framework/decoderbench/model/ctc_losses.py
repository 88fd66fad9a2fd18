"""Losses of CTC decoders that weigh texts by how well they are read."""

import torch
from torch import Tensor


def focal_loss(nll: Tensor, focus: float) -> Tensor:
    """Return (1 - p)^focus * nll of each text, (B,) in nats, p = exp(-nll): texts that are read count less.

    Lin et al. 2017, "Focal Loss for Dense Object Detection"; for CTC as in PaddleOCR, with a focus of 2. The gradient
    also passes through the weight. A focus of 0 gives the nll.
    """
    if not focus:
        return nll
    missing = -torch.expm1(-nll)  # 1 - p, exact for texts that are read almost surely
    return missing.clamp(min=torch.finfo(nll.dtype).tiny) ** focus * nll
