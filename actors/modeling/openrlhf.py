"""The only import of openrlhf: its established implementations of losses, KL estimators, and length balancing.

openrlhf's API changes between patch releases, so no other module imports it, and
`tests/actors/modeling/test_openrlhf.py` checks what this one relies on. Its models import five names of flash-attn,
which exists for CUDA only; if it is not installed, equivalent torch functions replace them while openrlhf is imported.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from actors.distributed.devices import choose_accelerator


def index_first_axis(tensor: Tensor, indices: Tensor) -> Tensor:
    """Rows `indices`, (K,), of `tensor`, (R, ...): returns (K, ...)."""
    return tensor[indices]


def unpad_input(hidden: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor, Tensor, int, Tensor]:
    """Removes padding.

    Args:
        hidden: (B, L, ...).
        attention_mask: (B, L), 0 for padding.

    Returns:
        The K other tokens, (K, ...); their indices, (K,); cumulative lengths, (B + 1,); the longest length; lengths,
        (B,).
    """
    lengths = attention_mask.sum(dim=-1, dtype=torch.int32)
    indices = attention_mask.flatten().nonzero().flatten()
    bounds = torch.nn.functional.pad(lengths.cumsum(0, dtype=torch.int32), (1, 0))
    return hidden.flatten(0, 1)[indices], indices, bounds, int(lengths.max()), lengths


def pad_input(hidden: Tensor, indices: Tensor, batch: int, length: int) -> Tensor:
    """Inverts `unpad_input`: returns (batch, length, ...) with `hidden`, (K, ...), at `indices`, (K,), else zero."""
    padded = hidden.new_zeros(batch * length, *hidden.shape[1:])
    return padded.index_copy(0, indices, hidden).unflatten(0, (batch, length))


def all_gather(tensor: Tensor, group: torch.distributed.ProcessGroup | None = None) -> Tensor:
    """Concatenates the tensors of all ranks, (N, ...) each, along the first axis: (ranks * N, ...)."""
    world = torch.distributed.get_world_size(group)
    gathered = tensor.new_empty(world * tensor.shape[0], *tensor.shape[1:])
    torch.distributed.all_gather_into_tensor(gathered, tensor.contiguous(), group=group)
    return gathered


def _stand_in_for_flash_attn() -> list[str]:
    modules: dict[str, dict[str, Any]] = {
        "flash_attn": {},
        "flash_attn.bert_padding": {
            "index_first_axis": index_first_axis,
            "pad_input": pad_input,
            "rearrange": rearrange,
            "unpad_input": unpad_input,
        },
        "flash_attn.utils": {},
        "flash_attn.utils.distributed": {"all_gather": all_gather},
    }
    for name, members in modules.items():
        module = types.ModuleType(name)
        module.__dict__.update(members)
        sys.modules[name] = module
    return list(modules)


choose_accelerator()

# Transformers and peft check once whether flash-attn is installed. They are imported before the stand-ins exist, so
# that the check does not find them; the stand-ins are removed as soon as openrlhf is imported.
import peft  # noqa: E402, F401
import transformers.modeling_utils  # noqa: E402, F401

_stood_in = [] if importlib.util.find_spec("flash_attn") else _stand_in_for_flash_attn()
from openrlhf.models.loss import DPOLoss, PairWiseLoss, PolicyLoss, ValueLoss  # noqa: E402
from openrlhf.models.utils import compute_approx_kl, masked_mean  # noqa: E402
from openrlhf.utils.seqlen_balancing import get_seqlen_balanced_partitions  # noqa: E402

for _name in _stood_in:
    del sys.modules[_name]

__all__ = [
    "DPOLoss",
    "PairWiseLoss",
    "PolicyLoss",
    "ValueLoss",
    "compute_approx_kl",
    "get_seqlen_balanced_partitions",
    "masked_mean",
]
