"""What one process of an engine holds after its weights were replaced: the sum of its bits, and what was not replaced.

These functions run in vLLM's worker. Neither is asked of the parameters afterwards: on CPUs, vLLM packs the matrices of
a layer as soon as it is loaded, and a layer that gets no weights silently keeps its old ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from torch import Tensor, nn

from actors.weight_bits import bit_sum, modulo


class HeldBits:
    """Adds up the bits of a model's parameters while they are loaded: of each layer before vLLM processes it.

    With tensor parallelism, the sums of all processes add up to that of the whole model: what several processes hold
    alike is counted by the first of them. A tied output head is not counted.
    """

    def __init__(self, model: nn.Module) -> None:
        from vllm.distributed import get_tensor_model_parallel_rank

        self._model, self._rank = model, get_tensor_model_parallel_rank()
        self._total, self._counted, self._missing = 0, set[nn.Module](), list[str]()
        self._methods: list[Any] = []
        for layer in model.modules():
            method: Any = getattr(layer, "quant_method", None)
            if hasattr(method, "process_weights_after_loading"):
                method.process_weights_after_loading = self._counting(layer, method.process_weights_after_loading)
                self._methods.append(method)

    def note_missing(self) -> None:
        """Notes which parameters did not get all their elements. Call it before vLLM ends the update."""
        from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding
        from vllm.model_executor.model_loader.reload.layerwise import get_layerwise_info

        for name, layer in self._model.named_modules():
            info = get_layerwise_info(layer)
            if not info.can_load() or not info.load_numel_total or _is_tied_head(layer, self._model):
                continue
            needed = (
                1 if isinstance(layer, VocabParallelEmbedding) else info.load_numel_total
            )  # its padding is not loaded
            if info.load_numel < needed and next(layer.parameters(recurse=False), None) is not None:
                self._missing.append(name)

    def finish(self) -> tuple[int, list[str]]:
        """Returns the sum, and the names of the layers that did not get all their weights; stops counting."""
        self.stop()
        for layer in self._model.modules():
            self._count(layer)
        return modulo(self._total), self._missing

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
        if layer not in self._counted and not _is_tied_head(layer, self._model):
            self._counted.add(layer)
            self._total += sum(int(bit_sum(part)) for part in _own_parts(layer, self._rank))


def _own_parts(layer: nn.Module, rank: int) -> Iterator[Tensor]:
    """Yields the parts of a layer's parameters that no process before `rank` holds as well."""
    from vllm.model_executor.layers.linear import QKVParallelLinear

    for name, parameter in layer.named_parameters(recurse=False):
        if not (_is_divided(layer, name) or rank == 0):
            continue
        if isinstance(layer, QKVParallelLinear) and rank % layer.num_kv_head_replicas:
            yield parameter[: layer.num_heads * layer.head_size]  # its keys and values are those of another process
        else:
            yield parameter


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
    worker.held_bits = HeldBits(worker.get_model())


def note_missing(worker: Any) -> None:
    """Notes what was not loaded, before vLLM ends the update."""
    worker.held_bits.note_missing()


def require_complete(found: Sequence[tuple[int, list[str]]]) -> None:
    """Checks what `finish_counting` returned for every process.

    Raises:
        RuntimeError: a layer did not get all its weights.
    """
    if missing := sorted({name for _, names in found for name in names}):
        raise RuntimeError(f"the new weights are incomplete: {len(missing)} layers lack some, such as {missing[0]}")


def finish_counting(worker: Any) -> tuple[int, list[str]]:
    """Returns the sum of this process, and the names of the layers that did not get all their weights."""
    counted, worker.held_bits = worker.held_bits, None
    found: tuple[int, list[str]] = counted.finish()
    return found
