"""DeepSpeed as this project uses it: imported without what it would compile in vain, and its settings of ZeRO."""

from __future__ import annotations

from typing import Any

import torch

from actors.config import ZeroConfig
from actors.sizing.memory import BUCKET_ELEMENTS


def import_deepspeed() -> Any:
    """The module. The process must have been prepared (`actors.distributed.devices.prepare_process`)."""
    import deepspeed

    # A C++ op for all-reduce in tensor-parallel inference, which nothing here does: a minute of compiling.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def steps_adamw_itself(zero: ZeroConfig) -> bool:
    """Whether DeepSpeed puts no optimizer of its own around AdamW."""
    return zero.stage == 0 and zero.dtype == "float32"


def deepspeed_settings(zero: ZeroConfig, max_grad_norm: float, trained: int) -> dict[str, Any]:
    """DeepSpeed's configuration for a model of which `trained` parameters have gradients."""
    section: dict[str, Any] = {"stage": zero.stage, "overlap_comm": False, "contiguous_gradients": True}
    # DeepSpeed reserves a whole bucket at once, by default 2 GB whatever the model, and what forks must have that twice.
    section |= dict.fromkeys(("reduce_bucket_size", "allgather_bucket_size"), min(BUCKET_ELEMENTS, trained))
    if not torch.cuda.is_available():
        # Several gathers at a time are waited for by the last one only (until DeepSpeed's pull request 8539), and gloo, unlike
        # a CUDA stream, ends them in any order: now and then a parameter was read before it had arrived.
        section["stage3_allgather_sequential"] = True
    if zero.offload_optimizer:
        section["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return {
        # Batches are cut by tokens, not by samples: accumulation is ended by hand and losses carry their own weights.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "zero_optimization": section,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": zero.dtype == "bfloat16"},
        "gradient_clipping": 0.0 if steps_adamw_itself(zero) else max_grad_norm,
        "steps_per_print": 2**31,
    }
