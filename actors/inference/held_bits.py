"""What one process of an engine holds after its weights were replaced: the sum of its bits, and what was not replaced.

These functions run in vLLM's worker. Neither is asked of the parameters afterwards: on CPUs, vLLM packs the matrices of
a layer as soon as it is loaded, and a layer that gets no weights silently keeps its old ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from actors.weight_bits import bit_sum, modulo


@dataclass(frozen=True)
class Held:
    """What one process holds: what its layers divide, what else they have, and which of them did not get all weights.

    Attributes:
        divided: sum of the bits of what no process before this one holds as well.
        others: sums of the bits of other parameters, by name, which the processes either hold alike or divide.
        missing: names of the layers that did not get all their weights.
    """

    divided: int
    others: Mapping[str, int]
    missing: Sequence[str]


def whole(held: Sequence[Held]) -> int:
    """Returns the sum of the bits of the whole model, from what each process of an engine holds.

    Raises:
        RuntimeError: a layer did not get all its weights.
    """
    if missing := sorted({name for each in held for name in each.missing}):
        raise RuntimeError(f"the new weights are incomplete: {len(missing)} layers lack some, such as {missing[0]}")
    total = sum(each.divided for each in held)
    for name in held[0].others:
        sums = [each.others[name] for each in held]
        total += sums[0] if len(set(sums)) == 1 else sum(sums)
    return modulo(total)


class HeldBits:
    """Adds up the bits of a model's parameters while they are loaded: of each layer before vLLM processes it.

    A tied output head is not counted.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        from vllm.distributed import get_tensor_model_parallel_rank

        self._model, self._dtype, self._rank = model, dtype, get_tensor_model_parallel_rank()
        self._divided, self._others, self._missing = 0, dict[str, int](), list[str]()
        self._uncounted = {layer: name for name, layer in model.named_modules() if not _is_tied_head(layer, model)}
        self._methods: list[Any] = []
        for layer in self._uncounted:
            method: Any = getattr(layer, "quant_method", None)
            if hasattr(method, "process_weights_after_loading"):
                method.process_weights_after_loading = self._counting(layer, method.process_weights_after_loading)
                self._methods.append(method)

    def note_missing(self) -> None:
        """Notes which layers did not get all their elements. Call it before vLLM ends the update."""
        from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding
        from vllm.model_executor.model_loader.reload.layerwise import get_layerwise_info

        for layer, name in self._uncounted.items():
            info = get_layerwise_info(layer)
            if not info.can_load() or not any(True for _ in layer.parameters(recurse=False)):
                continue
            padded = isinstance(layer, VocabParallelEmbedding)  # its padding is not loaded
            if info.load_numel < (1 if padded else info.load_numel_total):
                self._missing.append(name)

    def finish(self) -> Held:
        """Returns what this process holds; stops counting."""
        self.stop()
        for layer in list(self._uncounted):
            self._count(layer)
        return Held(modulo(self._divided), self._others, self._missing)

    def stop(self) -> None:
        """Restores vLLM's methods."""
        for method in self._methods:
            with suppress(AttributeError):
                del method.process_weights_after_loading

    def _counting(self, layer: nn.Module, process: Callable[..., Any]) -> Callable[..., Any]:
        def count_and_process(*arguments: Any, **options: Any) -> Any:
            self._count(layer)
            return process(*arguments, **options)

        return count_and_process

    def _count(self, layer: nn.Module) -> None:
        from vllm.model_executor.layers.linear import QKVParallelLinear

        prefix = self._uncounted.pop(layer, None)
        if prefix is None:
            return
        for name, parameter in layer.named_parameters(recurse=False):
            if not _is_divided(layer, name):
                self._others[f"{prefix}.{name}"] = int(bit_sum(parameter, self._dtype))
                continue
            own = parameter.data
            if isinstance(layer, QKVParallelLinear) and self._rank % layer.num_kv_head_replicas:
                own = own[: layer.num_heads * layer.head_size]  # its keys and values are those of another process
            self._divided += int(bit_sum(own, self._dtype))


def _is_divided(layer: nn.Module, name: str) -> bool:
    """Returns whether every process holds another part of the parameter."""
    from vllm.distributed import get_tensor_model_parallel_world_size
    from vllm.model_executor.layers.fused_moe.routed_experts import RoutedExperts
    from vllm.model_executor.layers.linear import ColumnParallelLinear, RowParallelLinear
    from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

    if isinstance(layer, RowParallelLinear):
        return layer.tp_size > 1 and name != "bias"
    if isinstance(layer, RoutedExperts):
        return get_tensor_model_parallel_world_size() > 1
    return isinstance(layer, ColumnParallelLinear | VocabParallelEmbedding) and layer.tp_size > 1


def _is_tied_head(layer: nn.Module, model: Any) -> bool:
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

    return isinstance(layer, ParallelLMHead) and bool(model.config.tie_word_embeddings)


def start_counting(worker: Any) -> None:
    """Starts to count, after vLLM has prepared the model for new weights; ends an earlier count that failed."""
    if earlier := getattr(worker, "held_bits", None):
        earlier.stop()
    worker.held_bits = HeldBits(worker.get_model(), worker.model_config.dtype)


def note_missing(worker: Any) -> None:
    """Notes what was not loaded, before vLLM ends the update."""
    worker.held_bits.note_missing()


def finish_counting(worker: Any) -> Held:
    """Returns what this process holds."""
    counted, worker.held_bits = worker.held_bits, None
    held: Held = counted.finish()
    return held
