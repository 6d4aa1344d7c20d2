"""Replaces the weights of vLLM's model, from parts of them or from a folder. What is here runs in vLLM's worker.

vLLM's own `reload_weights` needs all weights at once, and on CPUs leaves a tied output head and all experts as they were.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from torch import Tensor

from actors.inference import held_bits
from actors.model_folder.folders import ModelFolder


def begin(worker: Any) -> None:
    """Prepares the model for new weights, and starts to count them."""
    from vllm.model_executor.layers.fused_moe.oracle.unquantized import UnquantizedMoeBackend
    from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

    with _vllm_settings(worker):
        initialize_layerwise_reload(worker.get_model())
    for layer in worker.get_model().modules():
        method: Any = getattr(layer, "quant_method", None)
        if getattr(method, "unquantized_backend", None) == UnquantizedMoeBackend.CPU:
            method.moe_kernel = None  # otherwise vLLM does not pack the new experts, and computes something else
    held_bits.start_counting(worker)


def load(worker: Any, weights: Iterable[tuple[str, Tensor]]) -> None:
    """Loads some of the weights, by their Hugging Face names."""
    model = worker.get_model()
    with _vllm_settings(worker):
        model.load_weights(_with_tied_head(model, weights))


def end(worker: Any) -> held_bits.Held:
    """Makes the model compute with the weights that were loaded; returns what this process holds now."""
    from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

    held_bits.note_missing(worker)
    with _vllm_settings(worker):
        finalize_layerwise_reload(worker.get_model(), worker.model_config)
    return held_bits.finish_counting(worker)


class ReloadsFolders:
    """What the endpoint adds to vLLM's worker (`worker_extension_cls`)."""

    def reload_folder(self, path: str) -> None:
        """Replaces the weights by those of a folder in Hugging Face format.

        Raises:
            RuntimeError: a layer did not get all its weights.
        """
        begin(self)
        load(self, ModelFolder(Path(path)).weights())
        if missing := end(self).missing:
            raise RuntimeError(f"{path} is incomplete: {len(missing)} layers lack weights, such as {missing[0]}")


def _with_tied_head(model: Any, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Yields a tied embedding a second time, as the output head, if the model has one.

    On CPUs, vLLM keeps a packed copy for the head, which a reload that does not name the head leaves unchanged.
    """
    tied = model.config.tie_word_embeddings and hasattr(model, "lm_head")
    for name, tensor in weights:
        if tied and name == "lm_head.weight":
            continue  # some files have both ends; what counts is the embedding
        yield name, tensor
        if tied and name.endswith("embed_tokens.weight"):
            yield "lm_head.weight", tensor


def _vllm_settings(worker: Any) -> AbstractContextManager[None]:
    from vllm.config import set_current_vllm_config

    return set_current_vllm_config(worker.vllm_config)
