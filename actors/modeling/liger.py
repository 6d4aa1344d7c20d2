"""Liger's fused kernels (Hsu et al. 2024) for norms, rotary embeddings, and feed-forward activations.

Liger is an optional dependency for GPUs. Its loss functions are not used: `actors.modeling.logprobs` computes
log-probabilities.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from configs.errors import ConfigError


def use_liger(model: PreTrainedModel) -> None:
    """Replaces the modules of `model` that Liger has kernels for.

    Raises ConfigError if there is no GPU, the package is missing, or Liger has no kernels for the model's family.
    """
    if not torch.cuda.is_available():
        raise ConfigError("zero.liger: Liger's kernels need a GPU; set it to false on CPUs")
    try:
        from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN
    except ImportError as error:
        raise ConfigError("zero.liger: the package is missing; pip install liger-kernel, or set it to false") from error
    family = model.config.model_type
    if family not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        known = ", ".join(sorted(MODEL_TYPE_TO_APPLY_LIGER_FN))
        raise ConfigError(f"zero.liger: Liger has no kernels for {family}; set it to false ({known} have some)")
    MODEL_TYPE_TO_APPLY_LIGER_FN[family](cross_entropy=False, fused_linear_cross_entropy=False, model=model)
