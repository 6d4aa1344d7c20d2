"""Imports DeepSpeed without compiling an unused C++ op, and creates its ZeRO configuration."""

from __future__ import annotations

from typing import Any

import torch

from actors.config import ZeroConfig
from actors.sizing.memory import BUCKET_ELEMENTS


def import_deepspeed() -> Any:
    """Imports DeepSpeed and returns the module. Call `actors.distributed.devices.prepare_process` first."""
    import deepspeed

    # A C++ op for all-reduce in tensor-parallel inference, which is not used here and takes a minute to compile.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def steps_adamw_itself(zero: ZeroConfig) -> bool:
    """Returns whether DeepSpeed steps AdamW directly instead of wrapping it in another optimizer."""
    return zero.stage == 0 and zero.dtype == "float32"


def deepspeed_settings(zero: ZeroConfig, max_grad_norm: float, trained: int) -> dict[str, Any]:
    """Returns DeepSpeed's configuration for a model in which `trained` parameters have gradients.

    Call it in the ranks' torch.distributed world.
    """
    overlaps = torch.cuda.is_available() and torch.distributed.get_world_size() > 1
    section: dict[str, Any] = {"stage": zero.stage, "overlap_comm": overlaps, "contiguous_gradients": True}
    # DeepSpeed allocates a full bucket at once, by default 2 GB for any model, and a process that forks needs it twice.
    section |= dict.fromkeys(("reduce_bucket_size", "allgather_bucket_size"), min(BUCKET_ELEMENTS, trained))
    if not torch.cuda.is_available():
        # DeepSpeed (until its pull request 8539) waits only for the last of several concurrent gathers, and gloo,
        # unlike a CUDA stream, finishes them in any order, so a parameter could be read before it had arrived.
        section["stage3_allgather_sequential"] = True
    if zero.offload_optimizer:
        section["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return {
        # Batches are split by tokens, not by samples: `update` sets the accumulation boundary, and losses are already
        # weighted.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "zero_optimization": section,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": zero.dtype == "bfloat16"},
        "gradient_clipping": 0.0 if steps_adamw_itself(zero) else max_grad_norm,
        "steps_per_print": 2**31,
    }
