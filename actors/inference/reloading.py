"""vLLM's `reload_weights`, which needs all weights at once, in parts. These functions run in vLLM's worker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor


def begin(worker: Any) -> None:
    """Prepares the model for new weights."""
    from vllm.model_executor.layers.fused_moe.oracle.unquantized import UnquantizedMoeBackend
    from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

    with _vllm_settings(worker):
        initialize_layerwise_reload(worker.get_model())
    for layer in worker.get_model().modules():
        method: Any = getattr(layer, "quant_method", None)
        if getattr(method, "unquantized_backend", None) == UnquantizedMoeBackend.CPU:
            method.moe_kernel = None  # otherwise vLLM does not pack the new experts, and computes something else


def load(worker: Any, weights: list[tuple[str, Tensor]]) -> None:
    """Loads some of the weights, by their Hugging Face names."""
    model = worker.get_model()
    with _vllm_settings(worker):
        model.load_weights(_with_tied_head(model, weights))


def end(worker: Any) -> None:
    """Makes the model compute with the weights that were loaded."""
    from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

    with _vllm_settings(worker):
        finalize_layerwise_reload(worker.get_model(), worker.model_config)


def _with_tied_head(model: Any, weights: list[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Yields a tied embedding a second time, as the output head, if the model has one.

    On CPUs, vLLM keeps a packed copy for the head, which a reload that does not name the head leaves unchanged.
    """
    tied = model.config.tie_word_embeddings and hasattr(model, "lm_head")
    for name, tensor in weights:
        yield name, tensor
        if tied and name.endswith("embed_tokens.weight"):
            yield "lm_head.weight", tensor


def _vllm_settings(worker: Any) -> AbstractContextManager[None]:
    from vllm.config import set_current_vllm_config

    return set_current_vllm_config(worker.vllm_config)
