"""Checks with large models of random weights: training speed, memory, and the costs of a checkpoint and of sleep."""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from actors.config import LoraConfig, OptimizerConfig, ZeroConfig
from actors.device_memory import module_tensors, tensors_in
from actors.distributed.devices import device, to_host
from actors.modeling.attention import ATTENTION
from actors.modeling.packed import PackedBatch
from actors.modeling.packed_models import PackedLM
from actors.sizing.memory import Work, lora_parameters, trained
from actors.sizing.shape import Shape
from actors.sizing.throughput import training_flops
from actors.zero.lora import add_lora
from actors.zero.model import ZeroModel
from benchmarks.gpu_check.timing import seconds_of

VOCABULARY = 39_424
PEAK_TFLOPS = {"H100": 989.0, "H200": 989.0, "A100": 312.0}  # dense bf16, NVIDIA's data sheets
STEPS = 3  # number of timed steps in `vocabulary`; `_timed_steps` has one fewer
MEMORY = (0.85, 1.15)  # accepted ratio of measured to estimated memory


def train_1b(gpu: bool) -> dict[str, Any]:
    """Trains all weights of a model of 1.3 billion parameters, with ZeRO stages 0 and 3.

    If Liger kernels are installed, also trains with them. A step has two micro-batches of sequences of 4,096 tokens.
    """
    shape = _shape(gpu, hidden=2048, layers=24, intermediate=5504, heads=16)
    found: dict[str, Any] = {"parameters": shape.parameters()}
    liger = gpu and find_spec("liger_kernel") is not None
    for fused in (False, True) if liger else (False,):  # Liger last: it patches functions of the whole process
        for stage in (0, 3):
            config = ZeroConfig(stage=stage, dtype="bfloat16", liger=fused)
            found[f"stage_{stage}" + fused * "_liger"] = _train(gpu, shape, config, sequences=4)
    return found


def train_7b_lora(gpu: bool) -> dict[str, Any]:
    """Trains LoRA on every linear layer of a frozen bf16 model of 7 billion parameters, with recomputed activations."""
    shape = _shape(gpu, hidden=4096, layers=32, intermediate=11008, heads=32)
    config = ZeroConfig(stage=0, dtype="bfloat16", gradient_checkpointing=True)
    return {"parameters": shape.parameters(), **_train(gpu, shape, config, sequences=4, lora=LoraConfig())}


def vocabulary(gpu: bool) -> dict[str, Any]:
    """Trains a model of half a billion parameters and a vocabulary of 151,936, with all logits at once and in chunks.

    Compares the losses, speed, and memory of the two.
    """
    shape = (
        Shape(896, 24, 4864, 14, 151_936, kv_heads=2, tied=1) if gpu else Shape(64, 2, 96, 4, 997, kv_heads=2, tied=1)
    )
    parts = [_parts(shape, 4, 4096 if gpu else 64)[0] for _ in range(2)]
    positions = len(parts[0].predict)
    zero = ZeroConfig(stage=0, dtype="bfloat16")
    found: dict[str, Any] = {"parameters": shape.parameters()}
    losses = []
    for name, rows in (("whole", positions), ("pieces", positions // 3)):
        before = _allocated()
        trainer = ZeroModel(PackedLM(_model(shape), rows * shape.vocab), zero, OptimizerConfig(lr=1e-4), STEPS + 2)
        with torch.no_grad():
            alone = trainer.engine(parts[0])[0]
        assert torch.equal(alone, trainer.engine(parts[0])[0]), f"{name}: log-probabilities differ with a gradient"
        losses.append(update(trainer, parts))
        seconds = seconds_of(partial(update, trainer, parts), STEPS)
        found[name] = {"tokens_per_second": round(sum(len(part.input_ids) for part in parts) / seconds)}
        if gpu:
            found[name]["peak_gib"] = round((torch.cuda.max_memory_allocated() - before) / 2**30, 2)
            trainer.engine.destroy()
        del trainer
        gc.collect()
    assert abs(losses[0] - losses[1]) < 1e-2, f"the losses are {losses}"
    return found


def checkpoint(gpu: bool) -> dict[str, Any]:
    """Measures how long a checkpoint of 0.3 billion parameters blocks training, and how long it takes to be on disk.

    Also measures the rate at which weights are copied to host memory for publishing.
    """
    shape = _shape(gpu, hidden=1024, layers=16, intermediate=2816, heads=16)
    model = ZeroModel(PackedLM(_model(shape)), ZeroConfig(dtype="bfloat16"), OptimizerConfig(), 2)
    parts = _parts(shape, 1, 512 if gpu else 32)
    update(model, parts)
    with tempfile.TemporaryDirectory() as folder:
        stalls = []
        for _ in range(2):  # the second reuses the pinned memory that the first has allocated
            began = time.perf_counter()
            model.save(Path(folder))
            stalls.append(time.perf_counter() - began)
            model.saved(Path(folder))
        done = time.perf_counter() - began
        size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    weights = 2 * shape.parameters()
    publish = seconds_of(lambda: [len(to_host(block)) for block in model.weight_blocks()], 3)
    return {
        "parameters": shape.parameters(),
        "checkpoint_gb": round(size / 1e9, 3),
        "first_stall_s": round(stalls[0], 3),
        "stall_s": round(stalls[1], 3),
        "stall_gbs": round(size / stalls[1] / 1e9, 2),
        "on_disk_s": round(done, 3),
        "weights_to_host_gbs": round(weights / publish / 1e9, 2),
    }


def sleep(gpu: bool) -> dict[str, Any]:
    """Frees and restores the memory of a learner of 0.3 billion parameters, as roles that share a GPU do.

    Measures how much stays on the device, and how long it takes once pinned memory is allocated. Everything must be back
    bit for bit, and a forward pass with the weights alone must be what it was.
    """
    shape = _shape(gpu, hidden=1024, layers=16, intermediate=2816, heads=16)
    parts = _parts(shape, 1, 512 if gpu else 32)
    found: dict[str, Any] = {"parameters": shape.parameters()}
    for stage in (0, 2, 3):
        began_with = _allocated()
        model = ZeroModel(PackedLM(_model(shape)), ZeroConfig(stage=stage, dtype="bfloat16"), OptimizerConfig(), 2)
        update(model, parts)
        logprobs, everything = model.forward(parts[0])[0], _bytes_held(model)
        seconds: dict[str, float] = {}
        held = {"all": _allocated() - began_with}
        for _ in range(2):  # the second reuses the pinned memory that the first has allocated
            for resident in ("nothing", "weights", "all"):
                seconds[resident] = _timed(partial(model.memory.hold, resident))
                held[f"{resident}_again" if resident == "all" else resident] = _allocated() - began_with
                if resident == "weights":
                    assert torch.equal(model.forward(parts[0])[0], logprobs), (
                        f"stage {stage}: weights are not what they were"
                    )
        assert _bytes_held(model) == everything, f"stage {stage}: what came back is not what was there"
        found[f"stage_{stage}"] = {
            "seconds": {name: round(value, 3) for name, value in seconds.items()},
            "gib": {name: round(value / 2**30, 3) for name, value in held.items()},
        }
        assert not gpu or held["nothing"] < 0.05 * held["all"], f"stage {stage}: {held} bytes stay"
        if gpu:
            model.engine.destroy()
        del model
        gc.collect()
    return found


def _bytes_held(model: ZeroModel) -> dict[int, int]:
    """Returns the sum of the bytes of every storage of a model and its optimizer, by the storage's identity."""
    tensors = [*module_tensors(model.engine.module), *tensors_in(model.engine.optimizer)]
    storages = {each.untyped_storage()._cdata: each.untyped_storage() for each in tensors if not each.is_meta}
    return {
        key: int(torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage).sum(dtype=torch.int64))
        for key, storage in storages.items()
    }


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _train(gpu: bool, shape: Shape, zero: ZeroConfig, sequences: int, lora: LoraConfig | None = None) -> dict[str, Any]:
    length = 4096 if gpu else 64
    parts = [_parts(shape, sequences, length)[0] for _ in range(2)]
    seconds, measured, reserved = _timed_steps(shape, zero, parts, lora)
    tokens = sum(part.input_ids.numel() for part in parts)
    flops = sum(training_flops(shape, part.lengths, len(part.predict), lora is not None) for part in parts)
    found = {"tokens_per_second": round(tokens / seconds), "tflops": round(flops / seconds / 1e12, 2)}
    if not gpu:
        return found
    torch.cuda.empty_cache()
    peak = next((rate for kind, rate in PEAK_TFLOPS.items() if kind in torch.cuda.get_device_name()), None)
    learned = None if lora is None else lora_parameters(shape, lora)
    work = Work(sequences * length, trained_parameters=learned)
    parts_of_estimate = {part.name: part.bytes for part in trained(shape, zero, 1, work, gpu=True).work}
    estimate = sum(size for name, size in parts_of_estimate.items() if name != "process")  # without CUDA's own memory
    return found | {
        "mfu": round(flops / seconds / 1e12 / peak, 4) if peak else None,
        "peak_gib": round(measured / 2**30, 2),
        "estimate_gib": {name: round(size / 2**30, 2) for name, size in parts_of_estimate.items()},
        "peak_vs_estimate": round(measured / estimate, 3),
        "within": MEMORY[0] <= measured / estimate <= MEMORY[1],
        "fragmentation": round(1 - measured / reserved, 4),
    }


def _timed_steps(
    shape: Shape, zero: ZeroConfig, parts: list[PackedBatch], lora: LoraConfig | None
) -> tuple[float, int, int]:
    """Returns the time of a step in seconds, and the peak bytes allocated and reserved, which are 0 on a CPU."""
    gc.collect()
    before = _allocated()  # memory that DeepSpeed engines of earlier checks still hold
    model = _model(shape)
    if lora is not None:
        add_lora(model, lora, seed=0)
    trainer = ZeroModel(PackedLM(model), zero, OptimizerConfig(lr=1e-4), STEPS + 1)
    update(trainer, parts)
    seconds = seconds_of(lambda: update(trainer, parts), STEPS - 1)
    if not torch.cuda.is_available():
        return seconds, 0, 0
    trainer.engine.destroy()
    return seconds, torch.cuda.max_memory_allocated() - before, torch.cuda.max_memory_reserved() - before


def _allocated() -> int:
    """Returns the bytes currently allocated on the GPU, and resets the peak statistics."""
    if not torch.cuda.is_available():
        return 0
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def _shape(gpu: bool, hidden: int, layers: int, intermediate: int, heads: int) -> Shape:
    if gpu:
        return Shape(hidden, layers, intermediate, heads, VOCABULARY)
    return Shape(hidden=64, layers=2, intermediate=96, heads=2, vocab=512)


def _model(shape: Shape) -> PreTrainedModel:
    config = LlamaConfig(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=4096,
        tie_word_embeddings=bool(shape.tied),
        attn_implementation=ATTENTION,
    )
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with device():
            return LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)


def _parts(shape: Shape, sequences: int, length: int) -> list[PackedBatch]:
    ids = torch.randint(4, shape.vocab, (sequences, length), generator=torch.Generator().manual_seed(0))
    return [PackedBatch.of(list(ids.numpy())).to(device())]


def update(model: ZeroModel, parts: list[PackedBatch]) -> float:
    """Runs one optimizer step; returns the loss before it."""
    predicted = sum(len(part.predict) for part in parts)
    metrics = model.update(
        parts, lambda engine, batch: engine(batch)[0], lambda found, _: (-found.sum() / predicted, {})
    )
    return metrics["loss"]
