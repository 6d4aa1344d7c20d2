"""Splits a causal language model's forward pass in two: up to the last hidden states, and from these to logits.

Between decoder and logits, families do more than a matrix multiplication: they scale or cap logits, or transform the
hidden states first. So both halves run the class's own forward pass; the second replaces the decoder by a stub that
returns the known hidden states. Shapes: T tokens, N of them selected, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel


def last_hidden_states(model: PreTrainedModel, inputs: Mapping[str, Any]) -> tuple[Tensor, str]:
    """Returns the decoder's output, (T, hidden), for one row of tokens, and the decoder's name in `model`.

    Raises ValueError if the model calls no submodule that contains its embeddings.
    """
    found: list[tuple[str, Tensor]] = []

    def keep(name: str, _: torch.nn.Module, __: Any, output: Any) -> None:
        found.append((name, output[0][0]))

    hooks = [model.get_submodule(name).register_forward_hook(partial(keep, name)) for name in _around_embeddings(model)]
    try:
        model(**inputs, logits_to_keep=torch.zeros(1, dtype=torch.int64, device=model.device))
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        raise ValueError(f"{type(model).__name__} calls no module that has its embeddings in it")
    name, hidden = found[-1]  # the outermost module returns last
    return hidden, name


def logits_of(model: PreTrainedModel, decoder: str, hidden: Tensor) -> Tensor:
    """Returns the logits, (N, V), of last hidden states, (N, hidden); `decoder` is the decoder's name in `model`."""
    with _giving(model, decoder, hidden[None]):
        logits: Tensor = model(inputs_embeds=hidden[None], use_cache=False).logits[0]
    return logits


def _around_embeddings(model: PreTrainedModel) -> list[str]:
    """Returns the names of the modules between `model` and its token embeddings, outermost first."""
    embeddings = model.get_input_embeddings()
    path = next(name for name, module in model.named_modules() if module is embeddings).split(".")
    return [".".join(path[:depth]) for depth in range(1, len(path))]


@contextmanager
def _giving(model: PreTrainedModel, decoder: str, hidden: Tensor) -> Iterator[None]:
    """Makes the decoder of `model` return `hidden`, (1, N, hidden), for any input, inside the block."""
    path, _, name = decoder.rpartition(".")
    modules: dict[str, Any] = model.get_submodule(path)._modules
    module = modules[name]
    modules[name] = _Given(module, hidden)  # not an nn.Module, which would register the decoder
    try:
        yield
    finally:
        modules[name] = module


class _Given:
    """Stub of a decoder that returns a known output. All attributes are those of the decoder."""

    def __init__(self, decoder: torch.nn.Module, hidden: Tensor) -> None:
        self._decoder = decoder
        self._output = _Output(hidden)

    def __call__(self, *_: Any, **__: Any) -> _Output:
        return self._output

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)


class _Output:
    """Output of a decoder: last hidden states by name or index, and None for every other attribute."""

    def __init__(self, hidden: Tensor) -> None:
        self.last_hidden_state = hidden

    def __getitem__(self, index: Any) -> Any:
        return (self.last_hidden_state,)[index]

    def __getattr__(self, name: str) -> None:
        return None
