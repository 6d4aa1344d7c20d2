"""Checks of the kernels of the forward and backward passes: errors relative to higher precision, and speed.

Shapes: T tokens, H heads, L tokens of a sequence, D head size, N positions, V entries of the vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from actors.distributed.devices import device
from actors.modeling.attention import packed_attention
from actors.modeling.logprobs import token_logprobs
from actors.modeling.packing import Packing
from benchmarks.gpu_check.timing import peak_bytes_of, seconds_of

BF16_ERROR = 1.5e-2  # largest allowed error of a result of bf16 operands, relative to its norm


def attention(gpu: bool) -> dict[str, Any]:
    """Checks packed attention for several head counts, head sizes, and windows; on a GPU, also measures its speed.

    Returns the largest relative error and, on a GPU, the TFLOP/s and the time relative to SDPA.
    """
    lengths = (4096, 1, 777, 777, 2, 64, 1025) if gpu else (40, 1, 17, 17, 2)
    windows = (None, 512, 3) if gpu else (None, 9, 3)
    sizes = (64, 128, 256, 80) if gpu else (16,)
    errors = {}
    for kv_heads in (8, 2):
        for size in sizes:
            for window in windows:
                errors[f"8/{kv_heads} D{size} W{window}"] = _error(
                    lengths, (8, kv_heads, size), {"sliding_window": window}
                )
    worst = max(errors, key=errors.__getitem__)
    found = {"cases": len(errors), "largest_error": errors[worst], "in": worst}
    assert errors[worst] < (BF16_ERROR if gpu else 1e-5), f"{worst}: the relative error is {errors[worst]:.2g}"
    return found | (_attention_speed() if gpu else {})


def flex(gpu: bool) -> dict[str, Any]:
    """Checks packed attention with soft-capped scores and with attention sinks; returns the largest relative error."""
    lengths = (1500, 1, 300, 300, 2) if gpu else (40, 1, 17, 17, 2)
    dtype = torch.bfloat16 if gpu else torch.float32
    sinks = torch.randn(8, device=device(), dtype=dtype)
    errors = {}
    for window in (None, 128 if gpu else 9):
        shape = (8, 2, 64 if gpu else 16)
        errors[f"softcap W{window}"] = _error(lengths, shape, {"sliding_window": window, "softcap": 5.0})
        errors[f"sinks W{window}"] = _error(lengths, shape, {"sliding_window": window, "s_aux": sinks})
    worst = max(errors, key=errors.__getitem__)
    assert errors[worst] < (BF16_ERROR if gpu else 1e-5), f"{worst}: the relative error is {errors[worst]:.2g}"
    return {"cases": len(errors), "largest_error": errors[worst], "in": worst}


def _error(lengths: tuple[int, ...], shape: tuple[int, int, int], arguments: dict[str, Any]) -> float:
    """Returns the largest relative error of output and gradients against fp64 attention, sequence by sequence."""
    heads, kv_heads, size = shape
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    generator = torch.Generator(device()).manual_seed(0)

    def draw(count: int) -> Tensor:
        return torch.randn(1, count, sum(lengths), size, device=device(), dtype=dtype, generator=generator)

    tensors = [draw(heads), draw(kv_heads), draw(kv_heads)]
    slope = draw(heads).transpose(1, 2)
    given = [tensor.clone().requires_grad_() for tensor in tensors]
    module = torch.nn.Module()
    query, key, value = given
    output, _ = packed_attention(module, query, key, value, None, packing=Packing(lengths, device()), **arguments)
    output.backward(slope)
    exact = [tensor.double().requires_grad_() for tensor in tensors]
    parts = [tensor.split(lengths, dim=2) for tensor in exact]
    wanted = torch.cat([_plain(q, k, v, arguments) for q, k, v in zip(*parts, strict=True)], dim=2).transpose(1, 2)
    wanted.backward(slope.double())
    pairs = [(output, wanted), *((a.grad, b.grad) for a, b in zip(given, exact, strict=True))]
    return max(
        float((a.detach().double() - b.detach()).norm() / b.detach().norm())
        for a, b in pairs
        if a is not None and b is not None
    )


def _plain(query: Tensor, key: Tensor, value: Tensor, arguments: dict[str, Any]) -> Tensor:
    """Returns reference attention in fp64, (1, H, L, D)."""
    length, size = query.shape[2:]
    groups = query.shape[1] // key.shape[1]
    key, value = (tensor.repeat_interleave(groups, dim=1) for tensor in (key, value))
    scores = query @ key.transpose(2, 3) * size**-0.5
    if softcap := arguments.get("softcap"):
        scores = softcap * torch.tanh(scores / softcap)
    positions = torch.arange(length, device=query.device)
    behind = positions[:, None] - positions
    hidden = (behind < 0) | (behind >= (arguments.get("sliding_window") or length))
    scores = scores.masked_fill(hidden, -torch.inf)
    if (sinks := arguments.get("s_aux")) is not None:
        scores = torch.cat([scores, sinks.double().view(1, -1, 1, 1).expand(*scores.shape[:3], 1)], dim=-1)
    return scores.softmax(dim=-1)[..., :length] @ value


def _attention_speed() -> dict[str, Any]:
    """Times the forward and backward passes of four sequences, 32 heads of size 128: packed, and as a batch in SDPA."""
    count, length, heads, size = 4, 4096, 32, 128
    packing = Packing((length,) * count, device())
    shape = (1, heads, count * length, size)
    query, key, value = packed = [
        torch.randn(shape, device=device(), dtype=torch.bfloat16, requires_grad=True) for _ in range(3)
    ]
    q, k, v = (t.detach()[0].view(heads, count, length, size).transpose(0, 1).requires_grad_() for t in packed)
    flops = 3.5 * 2 * 2 * count * heads * size * length * (length + 1) / 2  # a backward pass is 2.5 forward passes

    def ours(window: int | None = None) -> None:
        module = torch.nn.Module()
        packed_attention(module, query, key, value, None, packing=packing, sliding_window=window)[0].sum().backward()

    def theirs() -> None:
        F.scaled_dot_product_attention(q, k, v, is_causal=True).sum().backward()

    seconds, sdpa, windowed = seconds_of(ours), seconds_of(theirs), seconds_of(lambda: ours(512))
    return {
        "tflops": round(flops / seconds / 1e12, 1),
        "time_vs_sdpa": round(seconds / sdpa, 3),
        "window_512_vs_full": round(windowed / seconds, 3),
    }


def logprobs(gpu: bool) -> dict[str, Any]:
    """Checks `token_logprobs` for large vocabularies.

    Returns the errors, the memory beyond logits and gradient, and the time relative to PyTorch's cross-entropy.
    """
    positions = 8192 if gpu else 128
    found: dict[str, Any] = {}
    for vocabulary in (39_410, 151_936) if gpu else (997,):
        generator = torch.Generator(device()).manual_seed(0)
        logits = torch.randn(positions, vocabulary, device=device(), generator=generator)
        logits = (4 * logits).to(torch.bfloat16).requires_grad_()
        targets = torch.randint(vocabulary, (positions,), device=device(), generator=generator)

        def ours(logits: Tensor = logits, targets: Tensor = targets) -> None:
            logits.grad = None
            (-token_logprobs(logits, targets)[0].mean()).backward()

        def theirs(logits: Tensor = logits, targets: Tensor = targets) -> None:
            logits.grad = None
            F.cross_entropy(logits.float(), targets).backward()

        ours()
        assert logits.grad is not None
        rows = slice(0, 256)  # enough rows to see an error, few enough for fp64
        part = logits.detach()[rows].double().requires_grad_()
        wanted = part.log_softmax(-1).gather(1, targets[rows, None]).squeeze(1)
        (-wanted.sum() / positions).backward()
        assert part.grad is not None
        found_rows = token_logprobs(logits.detach()[rows], targets[rows])[0]
        error = float((found_rows.double() - wanted.detach()).abs().max())
        gradient = float((logits.grad[rows].double() - part.grad).norm() / part.grad.norm())
        assert error < 1e-4, f"{vocabulary} entries: log-probabilities are off by {error:.2g}"
        assert gradient < 5e-3, f"{vocabulary} entries: the gradient is off by {gradient:.2g}"
        seconds, reference = seconds_of(ours), seconds_of(theirs)
        logits.grad = None
        own = logits.nbytes / 2**30
        found[str(vocabulary)] = {
            "logprob_error": error,
            "gradient_error": gradient,
            "logits_gib": round(own, 2),
            "extra_gib": round(peak_bytes_of(ours) / 2**30 - own, 2),  # without the gradient, as large as the logits
            "cross_entropy_extra_gib": round(peak_bytes_of(theirs) / 2**30 - own, 2),
            "ms": round(seconds * 1e3, 2),
            "time_vs_cross_entropy": round(seconds / reference, 3),
        }
    return found
