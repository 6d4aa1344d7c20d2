"""Checks of training steps: ZeRO against plain AdamW, and one step of policy and critic on a table."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from actors.config import ArchitectureConfig, OptimizerConfig, TrainedRoleConfig, ZeroConfig
from actors.distributed.devices import device
from actors.modeling.models import new_causal_lm
from actors.modeling.packed import PackedBatch
from actors.modeling.packed_models import PackedLM
from actors.modeling.rows import as_list_column
from actors.zero.model import ZeroModel, learning_rate
from benchmarks.gpu_check.checks import SkippedError

VOCABULARY = 2048
OPTIMIZER = OptimizerConfig(lr=1e-3, weight_decay=0.1, max_grad_norm=0.5, schedule="linear", warmup_steps=1)
STEPS = 3
# Largest allowed relative difference of loss and gradient norm from plain AdamW in fp32.
LIMITS = {"float32": 1e-3, "bfloat16": 0.05}


def zero(gpu: bool) -> dict[str, Any]:
    """Checks every stage, dtype, and option: three steps against plain AdamW, then an exact reload of a checkpoint."""
    plain = _plain_steps(gpu)
    found: dict[str, Any] = {"cases": 0, "largest_difference": dict.fromkeys(LIMITS, 0.0)}
    for config in _zero_configs(gpu):
        name = f"stage {config.stage} {config.dtype}" + (" offload" if config.offload_optimizer else "")
        name += " recomputed" if config.gradient_checkpointing else ""
        difference = _compare(config, gpu, plain, name)
        assert difference < LIMITS[config.dtype], f"{name}: loss or gradient norm is off by {difference:.2g} of it"
        largest = found["largest_difference"]
        largest[config.dtype] = max(largest[config.dtype], difference)
        found["cases"] += 1
    return found


def _zero_configs(gpu: bool) -> list[ZeroConfig]:
    """Returns the ZeRO configurations to check.

    On a CPU, omits optimizer offloading, which has no effect there, and uses gradient checkpointing at stage 3 only.
    """
    return [
        ZeroConfig(stage=stage, dtype=dtype, offload_optimizer=offload, gradient_checkpointing=recompute)
        for stage in (0, 2, 3)
        for dtype in ("float32", "bfloat16")
        for offload, recompute in ((False, False), (False, True), (True, True))
        if not (offload and (stage == 0 or not gpu)) and (gpu or not recompute or stage == 3)
    ]


def _compare(config: ZeroConfig, gpu: bool, plain: list[tuple[float, float]], name: str) -> float:
    parts = _batches(gpu)
    model = _zero_model(config, gpu)
    differences = []
    for loss, norm in plain:
        found = model.update(parts, _run, _mean_loss(parts))
        differences += [abs(found["loss"] - loss) / abs(loss), abs(found["grad_norm"] - norm) / norm]
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder))
        saved = model.full_state()
        model.saved(Path(folder))
        again = _zero_model(config, gpu)
        again.load(Path(folder))
        for key, tensor in again.full_state().items():
            assert torch.equal(tensor, saved[key]), f"{name}: {key} is not what was saved"
    return max(differences)


def _zero_model(config: ZeroConfig, gpu: bool) -> ZeroModel:
    return ZeroModel(_module(gpu), config, OPTIMIZER, total_steps=STEPS + 1)


def _module(gpu: bool) -> PackedLM:
    shape = ArchitectureConfig(
        hidden_size=256 if gpu else 32,
        intermediate_size=688 if gpu else 48,
        layers=4 if gpu else 2,
        heads=4 if gpu else 2,
        kv_heads=2,
        context=4096,
    )
    return PackedLM(new_causal_lm(shape, VOCABULARY, bos=1, eos=2, pad=3, seed=0)).to(device())


def _batches(gpu: bool) -> list[PackedBatch]:
    rng = np.random.default_rng(0)
    scale = 16 if gpu else 1
    lengths = [[40 * scale, 9, 9], [25 * scale, 24 * scale, 1]]
    return [PackedBatch.of([rng.integers(4, VOCABULARY, n) for n in part]).to(device()) for part in lengths]


def _run(engine: Any, batch: PackedBatch) -> Tensor:
    logprobs: Tensor = engine(batch)[0]
    return logprobs


def _mean_loss(parts: list[PackedBatch]) -> Callable[[Tensor, PackedBatch], tuple[Tensor, dict[str, Tensor]]]:
    total = sum(len(part.predict) for part in parts)
    return lambda logprobs, batch: (-logprobs.sum() / total, {})


def _plain_steps(gpu: bool) -> list[tuple[float, float]]:
    """Returns the loss and the gradient norm of each step of torch's AdamW in fp32."""
    module, parts = _module(gpu), _batches(gpu)
    groups = [[p for p in module.parameters() if (p.dim() >= 2) == matrix] for matrix in (True, False)]
    adamw = torch.optim.AdamW(
        [{"params": groups[0], "weight_decay": 0.1}, {"params": groups[1], "weight_decay": 0.0}],
        betas=OPTIMIZER.betas,
        eps=OPTIMIZER.eps,
    )
    found = []
    for step in range(STEPS):
        for group in adamw.param_groups:
            group["lr"] = learning_rate(OPTIMIZER, step, STEPS + 1)
        adamw.zero_grad()
        loss = torch.zeros((), device=device())
        for part in parts:
            share, _ = _mean_loss(parts)(_run(module, part), part)
            share.backward()
            loss += share.detach()
        norm = torch.nn.utils.clip_grad_norm_(module.parameters(), OPTIMIZER.max_grad_norm)
        adamw.step()
        found.append((float(loss), float(norm)))
    return found


def learn(gpu: bool) -> dict[str, Any]:
    """Checks one optimizer step of policy and critic on a synthetic table.

    The step's KL must be exactly 0, because it is computed before the weights change.
    """
    try:
        from trainers.rlhf.losses import ClippedPolicyLoss, ClippedValueLoss
    except ImportError as error:
        raise SkippedError(f"openrlhf is not installed ({error})") from error
    from actors.roles.critic import Critic
    from actors.roles.learner import Update
    from actors.roles.policy import Policy
    from trainers.config.algorithm import AlgorithmConfig

    micro_batches = [[0, 1, 2], [3, 4, 5, 6, 7], [8, 9]]
    with tempfile.TemporaryDirectory() as folder:
        _module(gpu).model.save_pretrained(folder)
        config = TrainedRoleConfig(model=folder, zero=ZeroConfig(dtype="bfloat16" if gpu else "float32"))
        policy, critic = Policy(torch.get_num_threads()), Critic(torch.get_num_threads())
        policy.setup(config, 1, 1.0, config.zero.dtype)
        critic.setup(config, 1)
    table = _table(*((200, 3000) if gpu else (12, 30)))
    for role in (policy, critic):
        added = role.add_columns(table, micro_batches)
        for name in added.column_names:
            table = table.append_column(name, added.column(name))
    (learned,) = policy.update(table, [Update(micro_batches)], ClippedPolicyLoss(AlgorithmConfig(), 0.05))
    (valued,) = critic.update(table, [Update(micro_batches)], ClippedValueLoss(0.2))
    for name in ("kl", "ratio_deviation"):
        assert learned[name] == 0.0, f"{name} of the first step is {learned[name]:.3g}"
    after = policy.add_columns(table, micro_batches).column("logprobs")
    assert after != table.column("logprobs"), "the step changed nothing"
    return {
        "kl": learned["kl"],
        "grad_norm": learned["grad_norm"],
        "value_loss": valued["loss"],
        "value_grad_norm": valued["grad_norm"],
    }


def _table(usual: int, long: int) -> pa.Table:
    """Returns eight rows with responses of fewer than `usual` tokens, and two with responses of `long` tokens.

    Long rows use another attention kernel.
    """
    rng = np.random.default_rng(0)
    counts = np.array([*rng.integers(2, usual, 8), long, long])
    prompts = [usual // 2] * len(counts)
    total = int(counts.sum())

    def tokens(sizes: Any) -> pa.Array[Any]:
        return as_list_column(rng.integers(4, VOCABULARY, int(np.sum(sizes))), list(sizes), pa.int32())

    def numbers(values: np.ndarray) -> pa.Array[Any]:
        return as_list_column(values, list(counts), pa.float32())

    return pa.table(
        {
            "prompt": tokens(prompts),
            "response": tokens(counts),
            "weights": numbers(np.full(total, 1 / total)),
            "advantages": numbers(rng.standard_normal(total)),
            "returns": numbers(rng.standard_normal(total)),
        }
    )
