"""Names and pieces of weights in a checkpoint, which for some families differ from those of Transformers' module."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion


def in_checkpoint_format(model: PreTrainedModel, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns weights of `model` as `save_pretrained` writes them, which is also what vLLM loads.

    Transformers holds the experts of a mixture in one tensor, for example, and a checkpoint each on its own.

    Args:
        model: the model.
        weights: full weights by their names in `model`, with all weights of every layer that it has any of.
    """
    converted: dict[str, Tensor] = revert_weight_conversion(model, dict(weights))
    return converted
