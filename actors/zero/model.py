"""One rank of a model trained with DeepSpeed: forward passes, updates, full weights, and checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from actors.config import OptimizerConfig, ZeroConfig
from actors.device_memory import DeviceMemory, module_tensors, tensors_in
from actors.distributed.devices import device, to_host
from actors.distributed.host_group import host_group
from actors.modeling.checkpoint_format import in_checkpoint_format
from actors.modeling.liger import use_liger
from actors.modeling.packed_models import PackedModule
from actors.zero.diverged import NotFiniteError
from actors.zero.lora import merged, name_without_lora
from actors.zero.reshard import load_universal, resharded
from actors.zero.settings import deepspeed_settings, import_deepspeed, steps_adamw_itself
from actors.zero.sharding import whole_shape
from storage.durable import writing

Batch = TypeVar("Batch")
# (output of the model, batch) -> (loss, metrics). A loss is the micro-batch's *share* of the global loss, times the
# number of ranks, because DeepSpeed averages gradients over ranks; so the sum over micro-batches and ranks does not
# depend on how the batch was split.
Loss = Callable[[Any, Batch], tuple[Tensor, dict[str, Tensor]]]


def learning_rate(optimizer: OptimizerConfig, step: int, total_steps: int) -> float:
    """Returns the learning rate of a step: linear warmup, then constant, or linear or cosine decay.

    Args:
        optimizer: the optimizer's settings.
        step: the optimizer step, counted from 0.
        total_steps: number of optimizer steps of the run.
    """
    if step < optimizer.warmup_steps:
        return optimizer.lr * (step + 1) / optimizer.warmup_steps
    if optimizer.schedule == "constant":
        return optimizer.lr
    done = min(1.0, (step - optimizer.warmup_steps) / max(1, total_steps - optimizer.warmup_steps))
    left = 1.0 - done if optimizer.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
    return optimizer.lr * (optimizer.final_lr_ratio + (1.0 - optimizer.final_lr_ratio) * left)


class ZeroModel:
    """A module under DeepSpeed ZeRO on this rank. torch.distributed must be initialized.

    Every method is collective: all ranks call it in the same order, with the same number of micro-batches. `memory` can
    free the device for other processes in between.

    Args:
        module: the module, in full on every rank or already sharded (see `actors.zero.loading`); `module.model` is the
            Transformers model whose weights are exported.
        zero: ZeRO settings.
        optimizer: AdamW and learning-rate settings.
        total_steps: optimizer steps of the whole run, for the learning-rate schedule.
    """

    def __init__(
        self,
        module: PackedModule,
        zero: ZeroConfig,
        optimizer: OptimizerConfig,
        total_steps: int,
    ) -> None:
        deepspeed = import_deepspeed()
        self.model = module.model
        if zero.liger:
            use_liger(self.model)
        if zero.gradient_checkpointing:
            self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self._optimizer = optimizer
        self._total_steps = total_steps
        self.steps_done = 0
        adamw = torch.optim.AdamW(
            _decay_groups(module, optimizer.weight_decay),
            lr=0.0,  # `update` sets it
            betas=optimizer.betas,
            eps=optimizer.eps,
            fused=True,  # one pass over memory instead of nine
        )
        # DeepSpeed turns a non-finite norm into -1 and takes the step, so gradients are checked here.
        self._norms: list[Tensor] = []
        self._clips = steps_adamw_itself(zero)  # DeepSpeed would clip without reporting the norm

        def before_adamw(*_: Any) -> None:
            if self._clips:
                self._norms.append(torch.nn.utils.clip_grad_norm_(module.parameters(), optimizer.max_grad_norm))
            else:
                self._norms.extend(_norms(adamw))

        adamw.register_step_pre_hook(before_adamw)
        trained = sum(whole_shape(parameter).numel() for parameter in module.parameters() if parameter.requires_grad)
        settings = deepspeed_settings(zero, optimizer.max_grad_norm, trained)
        host_group().barrier("reading the model")
        self.engine, *_ = deepspeed.initialize(model=module, optimizer=adamw, config=settings)
        # In bf16 without ZeRO, `initialize` takes a step with zero gradients to create optimizer state; AdamW would
        # count it.
        for state in adamw.state.values():
            state["step"].zero_()
        if zero.stage == 0 and torch.distributed.get_world_size() == 1:
            self.engine.enable_backward_allreduce = False  # otherwise gradients are copied twice, with nothing to sum
        self._stage = zero.stage
        from actors.zero.snapshot import SnapshotEngine  # imports DeepSpeed, which needs a prepared process

        self.engine.checkpoint_engine = self._snapshot = SnapshotEngine()
        self.memory = DeviceMemory(
            lambda: module_tensors(self.engine.module), lambda: tensors_in(self.engine.optimizer)
        )
        self.world_size: int = torch.distributed.get_world_size()
        self.rank: int = torch.distributed.get_rank()

    @torch.no_grad()
    def forward(self, *inputs: Any) -> Any:
        """Runs the module without gradients, in evaluation mode."""
        self.memory.require("weights")
        self.engine.eval()
        return self.engine(*inputs)

    def update(
        self,
        micro_batches: Sequence[Batch],
        run: Callable[[Any, Batch], Any],
        loss: Loss[Batch],
        has_trained_rows: bool = True,
    ) -> dict[str, float]:
        """Runs one optimizer step over `micro_batches`.

        Args:
            micro_batches: this rank's micro-batches; the same number on every rank.
            run: `run(engine, batch)` calls the model.
            loss: computes loss and metrics from the model's output.
            has_trained_rows: False if no rank has anything to train on. Weights and optimizer state then stay unchanged
                (AdamW would change the weights even with a zero gradient), but the step counts for the learning-rate
                schedule.

        Returns:
            The metrics of `loss`, summed over micro-batches and ranks, with `loss`, `grad_norm` (before clipping), and
            `lr`.

        Raises:
            NotFiniteError: the loss or the gradient is not finite. If it is the loss, the weights are unchanged; if it
                is the gradient, they are unreliable.
        """
        self.memory.require("all")
        self.engine.train()
        lr = learning_rate(self._optimizer, self.steps_done, self._total_steps)
        for group in self.engine.optimizer.param_groups:
            group["lr"] = lr
        sums: dict[str, Tensor] = {}
        finite: list[Tensor] = []
        for index, batch in enumerate(micro_batches):
            self.engine.set_gradient_accumulation_boundary(index == len(micro_batches) - 1)
            with torch.set_grad_enabled(has_trained_rows):
                value, metrics = loss(run(self.engine, batch), batch)
            finite.append(value.detach().isfinite())
            if has_trained_rows:
                self.engine.backward(value, scale_wrt_gas=False)
            for name, figure in {"loss": value.detach() / self.world_size, **metrics}.items():
                # Summed on the device, so that no micro-batch synchronizes with the host.
                sums[name] = sums.get(name, 0.0) + figure.detach().double()
        totals = self.sum_over_ranks(sums)
        if not math.isfinite(totals["loss"]):
            offending = [index for index, is_finite in enumerate(finite) if not is_finite]
            raise NotFiniteError(f"the loss is {totals['loss']}", self.steps_done + 1, self._of_every_rank(offending))
        if not has_trained_rows:
            self.steps_done += 1
            return {**totals, "grad_norm": 0.0, "lr": lr}
        self._norms.clear()
        self.engine.step()
        self.steps_done += 1
        # Without ZeRO, the bf16 optimizer skips a step that it cannot take; AdamW then sees no gradient.
        bad = not self._norms or not torch.stack(self._norms).isfinite().all()
        if self.sum_over_ranks({"bad": torch.tensor(float(bad), dtype=torch.float64)})["bad"]:
            everything = self._of_every_rank(list(range(len(micro_batches))))
            raise NotFiniteError("the gradient is not finite", self.steps_done, everything)
        norm = self._norms[0] if self._clips else self.engine.get_global_grad_norm()
        return {**totals, "grad_norm": float(norm), "lr": lr}

    def sum_over_ranks(self, sums: dict[str, Tensor]) -> dict[str, float]:
        """Sums each scalar over ranks; all ranks pass the same names."""
        if not sums:
            return {}
        stacked = torch.stack([sums[name].to(device()) for name in sorted(sums)])
        torch.distributed.all_reduce(stacked)
        return dict(zip(sorted(sums), stacked.tolist(), strict=True))

    def largest_over_ranks(self, value: float) -> float:
        """Returns the largest `value` over all ranks."""
        found = torch.tensor(value, dtype=torch.float64, device=device())
        torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
        return float(found)

    def _of_every_rank(self, mine: list[int]) -> list[list[int]]:
        found: list[list[int]] = [[] for _ in range(self.world_size)]
        torch.distributed.all_gather_object(found, mine)
        return found

    def weight_blocks(self) -> Iterator[dict[str, Tensor]]:
        """Yields the full weights by name, in the model's order, one decoder layer or other group at a time.

        Yields on rank 0 only, but all ranks must iterate. The tensors are valid until the next block. A tied weight is
        yielded once, and LoRA matrices are merged into their weights. Peak memory is one block, not the model.
        """
        import deepspeed

        self.memory.require("weights")
        # A forward pass may leave a prefetched parameter in flight, and gathering it would fail. The engine's method of
        # this name would also run Python's garbage collector, which takes longer than the gathering.
        if hasattr(self.engine.optimizer, "empty_partition_cache"):  # ZeRO-3's
            self.engine.optimizer.empty_partition_cache()
        seen: set[int] = set()
        for block in _blocks(self.model):
            named = [(name, p) for name, p in block if id(p) not in seen]
            seen.update(id(p) for _, p in named)
            sharded = [p for _, p in named if hasattr(p, "ds_id")]
            with deepspeed.zero.GatheredParameters(sharded, enabled=bool(sharded)):
                if self.rank == 0:
                    yield merged(self.model, {name: parameter.data for name, parameter in named})

    def checkpoint_blocks(self) -> Iterator[dict[str, Tensor]]:
        """Yields the full weights as `weight_blocks` does, but as a checkpoint of the model contains them."""
        for block in self.weight_blocks():
            yield in_checkpoint_format(self.model, block)

    def checkpoint_layout(self) -> Iterator[tuple[str, Tensor]]:
        """Yields names, shapes, and dtypes of what `checkpoint_blocks` yields, as tensors without data."""
        for block in _blocks(self.model):
            named = [(plain, p) for name, p in block if (plain := name_without_lora(name))]
            empty = {name: torch.empty(whole_shape(p), dtype=p.dtype, device="meta") for name, p in named}
            yield from in_checkpoint_format(self.model, empty).items()

    def full_state(self) -> dict[str, Tensor]:
        """Returns the full weights by name as CPU copies on rank 0; an empty dict on the other ranks."""
        state: dict[str, Tensor] = {}
        for block in self.weight_blocks():
            state |= to_host(block)
        return state

    def save(self, folder: Path) -> None:
        """Copies this rank's shard of weights and optimizer state, and the step count, and starts writing them to disk.

        Training can continue immediately; `saved` waits for the disk.

        Raises:
            DiskError: the folder cannot be written.
        """
        self.memory.require("all")
        with writing(folder, named=False):  # the error of copying a file would name its source
            self.engine.save_checkpoint(str(folder), tag="zero", client_state={"steps_done": self.steps_done})

    def saved(self, folder: Path) -> dict[str, str]:
        """Waits until this rank's shard is on disk; returns the SHA-256 of its files, by path below `folder`.

        Raises:
            DiskError: a file cannot be written.
        """
        return {str(Path(path).relative_to(folder)): digest for path, digest in self._snapshot.finish().items()}

    def load(self, folder: Path, ranks: int | None = None) -> None:
        """Restores what `save` wrote.

        Args:
            folder: the folder that was given to `save`.
            ranks: number of ranks that wrote the checkpoint; None if it is the current number.

        Raises:
            FileNotFoundError: there is no checkpoint in `folder`.
        """
        self.memory.require("all")
        if not (folder / "zero").is_dir():
            raise FileNotFoundError(f"{folder}: no DeepSpeed checkpoint here")
        self._snapshot.forget()  # pending writes are of steps that will be repeated
        host_group().barrier("writing an earlier checkpoint")
        if ranks in (None, self.world_size) or not self._stage:  # without sharding, one file serves all ranks
            _, state = self.engine.load_checkpoint(str(folder), tag="zero")
        else:
            with resharded(folder) as universal:
                state = load_universal(self.engine, universal)
        host_group().barrier("loading the checkpoint")
        self.steps_done = state["steps_done"]


def _norms(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Returns the norm of this rank's part of each gradient that the optimizer holds, after clipping."""
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    return [torch.linalg.vector_norm(gradient) for gradient in gradients]


def _blocks(model: PreTrainedModel) -> Iterator[list[tuple[str, torch.nn.Parameter]]]:
    """Yields the model's parameters in groups: one per decoder layer, and those before and after the layers.

    Each group is a prefix of its parameters' names, which is always empty, and a list of (name, parameter) pairs.
    """
    group: list[tuple[str, torch.nn.Parameter]] = []
    current: str | None = None
    for name, parameter in model.named_parameters():
        parts = name.split(".")
        layer = ".".join(parts[: next((i for i, part in enumerate(parts) if part.isdigit()), -1) + 1])
        if group and layer != current:
            yield group
            group = []
        current = layer
        group.append((name, parameter))
    if group:
        yield group


def _decay_groups(module: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Returns AdamW's parameter groups: weight decay applies to matrices only, not to norms and biases."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if len(whole_shape(p)) >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if len(whole_shape(p)) < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
