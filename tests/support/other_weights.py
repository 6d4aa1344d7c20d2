from __future__ import annotations

import torch


def change_weights(model: torch.nn.Module, seed: int = 0) -> None:
    """Changes every weight, the same way for the same seed: what the model computes is then far from what it was."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
