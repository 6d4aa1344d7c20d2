"""Models read into shards are, bit for bit, those that every rank reads whole."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import on_ranks
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

import actors.zero.sharding
from actors.config import LoraConfig, OptimizerConfig, ZeroConfig
from actors.distributed.host_group import HostGroup
from actors.modeling.models import Pretrained, load_causal_lm, load_scorer
from actors.modeling.packed import PackedBatch
from actors.modeling.packed_models import PackedLM, PackedModule, PackedScorer
from actors.zero.loading import load_to_train
from actors.zero.lora import add_lora
from actors.zero.model import ZeroModel

SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
CASES = {  # family, its embeddings tied, dtype of the files
    "llama": ("llama", False, torch.float32),
    "llama-tied": ("llama", True, torch.bfloat16),
    "qwen2": ("qwen2", False, torch.bfloat16),
    "qwen2-tied": ("qwen2", True, torch.float32),
}
BATCHES = [PackedBatch.of([range(4, 20), range(20, 39)]), PackedBatch.of([range(3, 30)])]


def make(case: str, folder: Path) -> str:
    """A checkpoint of a language model in several files."""
    family, tied, dtype = CASES[case]
    config = AutoConfig.for_model(
        family, vocab_size=41, num_key_value_heads=1, tie_word_embeddings=tied, pad_token_id=0, **SIZES
    )
    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.to(dtype).save_pretrained(folder / "lm", max_shard_size="4KB")
    return str(folder / "lm")


def make_scorer(case: str, folder: Path) -> str:
    """One with a trained scalar head."""
    scores = load_scorer(make(case, folder), CASES[case][2])
    torch.nn.init.normal_(scores.get_submodule("score").weight)
    scores.save_pretrained(folder / "scorer", max_shard_size="4KB")
    return str(folder / "scorer")


def loss(outputs: Any, batch: PackedBatch) -> tuple[Tensor, dict[str, Tensor]]:
    values = outputs[0] if isinstance(outputs, tuple) else (outputs[batch.predict] - 1) ** 2  # a new head gives 0
    return values.sum() / 60, {"tokens": torch.tensor(len(batch.predict))}


def trained(module: PackedModule, zero: ZeroConfig, rank: int, folder: Path) -> dict[str, Any]:
    """The weights read, what three updates give, and the weights of a checkpoint of them that is loaded again."""
    model = ZeroModel(module, zero, OptimizerConfig(lr=1e-2, weight_decay=0.1), total_steps=3)
    found: dict[str, Any] = {"start": model.full_state()}
    found["updates"] = [model.update([BATCHES[rank]], lambda engine, batch: engine(batch), loss) for _ in range(2)]
    folder.mkdir(exist_ok=True)
    model.save(folder)
    model.saved(folder)
    found["updates"].append(model.update([BATCHES[rank]], lambda engine, batch: engine(batch), loss))
    found["end"] = model.full_state()
    model.load(folder)
    found["again"] = model.update([BATCHES[rank]], lambda engine, batch: engine(batch), loss)
    found["end_again"] = model.full_state()
    return found


def whole(kind: type[PackedModule], model: str, dtype: torch.dtype) -> PackedModule:
    if kind is PackedLM:
        return PackedLM(load_causal_lm(model, dtype))
    return PackedScorer(load_scorer(model, dtype))


def both_ways(rank: int, world: int, folder: str, kind_name: str, lora: str, *models: str) -> dict[str, Any]:
    """Of each model in both dtypes, read whole and into shards."""
    found = {}
    kind: type[PackedModule] = {"lm": PackedLM, "scorer": PackedScorer}[kind_name]
    if rank:
        actors.zero.sharding._read = lambda *_: pytest.fail("rank 1 reads")
    for model in models:
        for dtype in ("float32", "bfloat16"):
            zero = ZeroConfig(dtype=dtype)  # type: ignore[arg-type]
            for way in ("shards", "whole"):
                if way == "shards":
                    module: PackedModule = load_to_train(kind, model, zero)
                    assert sum(parameter.numel() for parameter in module.parameters()) == 0
                else:  # in fp32, as policy and critic were read; LoRA's matrices get the model's dtype
                    module = whole(kind, model, getattr(torch, dtype) if lora else torch.float32)
                if lora:
                    add_lora(module.model, LoraConfig(rank=4), seed=3)
                aside = Path(folder) / f"{len(found)}"
                found[f"{model} {dtype} {way}"] = trained(module, zero, rank, aside)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "makes", "cases", "lora"),
    [
        ("lm", make, ("llama", "llama-tied", "qwen2", "qwen2-tied"), ""),
        ("scorer", make_scorer, ("llama",), ""),
        ("scorer", make, ("qwen2", "llama-tied"), ""),  # whose head is new
        ("lm", make, ("qwen2-tied",), "lora"),
        ("scorer", make, ("llama",), "lora"),
    ],
)
def test_two_ranks_train_alike_what_they_read_whole_or_into_shards(
    kind: str, makes: Callable[[str, Path], str], cases: tuple[str, ...], lora: str, tmp_path: Path
) -> None:
    models = [makes(case, tmp_path / case) for case in cases]
    found = on_ranks(2, __file__, "both_ways", tmp_path, tmp_path, kind, lora, *models)
    assert len(found) == 4 * len(models)
    for model, dtype in itertools.product(models, ("float32", "bfloat16")):
        shards, whole = found[f"{model} {dtype} shards"], found[f"{model} {dtype} whole"]
        assert shards["updates"] == whole["updates"]
        assert shards["again"] == whole["again"] == shards["updates"][2]
        assert shards["updates"][1]["grad_norm"] > 0
        for state in ("start", "end", "end_again"):
            assert list(shards[state]) == list(whole[state])
            for name, tensor in whole[state].items():
                assert torch.equal(shards[state][name], tensor), (state, name)
        assert any(not torch.equal(shards["start"][name], tensor) for name, tensor in shards["end"].items())


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gemma2", "phi3", "granite"])
@pytest.mark.parametrize("kind", ["lm", "scorer"])
def test_an_empty_model_is_the_whole_one_but_for_its_weights(family: str, kind: str, tmp_path: Path) -> None:
    config = AutoConfig.for_model(
        family, vocab_size=41, num_key_value_heads=1, head_dim=8, pad_token_id=0, eos_token_id=1, **SIZES
    )
    model = AutoModelForCausalLM.from_config(config)
    if family == "qwen2":
        model.generation_config.top_k = 7
        model.generation_config.do_sample = True
    model.save_pretrained(tmp_path)
    if family == "llama":
        (tmp_path / "generation_config.json").unlink()
    found = Pretrained.causal_lm(str(tmp_path)) if kind == "lm" else Pretrained.scorer(str(tmp_path))
    whole, empty = found.whole(torch.bfloat16), found.empty(torch.bfloat16)
    assert type(empty).__name__ == type(whole).__name__
    assert {parameter.device.type for parameter in empty.parameters()} == {"meta"}
    for ours, theirs in ((empty.named_parameters, whole.named_parameters), (empty.named_modules, whole.named_modules)):
        assert [name for name, _ in ours(remove_duplicate=False)] == [n for n, _ in theirs(remove_duplicate=False)]
        assert [name for name, _ in ours()] == [name for name, _ in theirs()]  # tied weights are one
    for (name, parameter), other in zip(empty.named_parameters(), whole.parameters(), strict=True):
        assert (parameter.shape, parameter.dtype) == (other.shape, other.dtype), name
    for (name, buffer), (_, other) in zip(empty.named_buffers(), whole.named_buffers(), strict=True):
        assert torch.equal(buffer, other), name
    assert empty.config.to_dict() == whole.config.to_dict()
    assert empty.config._attn_implementation == whole.config._attn_implementation == "packed"
    assert (empty.training, empty.dtype) == (whole.training, whole.dtype)
    if kind == "lm":
        assert empty.generation_config.to_dict() == whole.generation_config.to_dict()


def test_what_cannot_be_read_into_shards_is_read_whole_and_said(
    world: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make("qwen2", tmp_path)
    expected = load_causal_lm(folder, torch.float32)
    file = next(path for path in Path(folder).glob("*.safetensors") if "model.norm.weight" in load_file(path))
    save_file({**load_file(file), "extra": torch.zeros(3)}, file, {"format": "pt"})
    module = load_to_train(PackedLM, folder, ZeroConfig())
    assert "every rank reads the whole model: its files have extra, which is no parameter" in caplog.text
    caplog.clear()
    assert all(torch.equal(p, q) for p, q in zip(module.parameters(), expected.parameters(), strict=True))
    load_to_train(PackedLM, folder, ZeroConfig(stage=2))  # which shards no weights anyway
    assert "every rank" not in caplog.text


def test_ranks_wait_outside_of_the_broadcast_while_rank_0_reads(
    world: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deepspeed.runtime.zero.partition_parameters import dist

    folder = make("qwen2-tied", tmp_path)
    steps: list[str] = []
    for holder, method, step in (
        (actors.zero.sharding, "_read", "read"),
        (HostGroup, "barrier", "wait"),
        (dist, "broadcast", "send"),
    ):
        call = getattr(holder, method)
        monkeypatch.setattr(holder, method, lambda *given, call=call, step=step: steps.append(step) or call(*given))
    module = load_to_train(PackedLM, folder, ZeroConfig())
    assert steps == ["wait", *["read", "wait", "send"] * len(list(module.parameters()))]  # first for the headers


def test_below_stage_3_it_is_read_in_the_dtype_of_the_forward_pass(world: None, tmp_path: Path) -> None:
    folder = make("llama", tmp_path)
    for stage, dtype in ((0, "float32"), (2, "bfloat16")):
        zero = ZeroConfig(stage=stage, dtype=dtype)  # type: ignore[arg-type]
        module = load_to_train(PackedLM, folder, zero)
        assert module.model.dtype == getattr(torch, dtype)
        ours = ZeroModel(module, zero, OptimizerConfig(lr=1e-2), 2)
        theirs = ZeroModel(PackedLM(load_causal_lm(folder, torch.float32)), zero, OptimizerConfig(lr=1e-2), 2)
        for model in (ours, theirs):
            model.update(BATCHES, lambda engine, batch: engine(batch), loss)
        assert all(torch.equal(tensor, theirs.full_state()[name]) for name, tensor in ours.full_state().items())


@pytest.mark.parametrize("dropout", [False, True])
def test_dropout_is_off_unless_it_is_asked_for(world: None, dropout: bool, tmp_path: Path) -> None:
    AutoModelForCausalLM.from_config(
        AutoConfig.for_model("llama", vocab_size=41, attention_dropout=0.5, **SIZES)
    ).save_pretrained(tmp_path)
    model = load_to_train(PackedLM, str(tmp_path), ZeroConfig(), dropout=dropout).model
    assert model.get_submodule("model.layers.0.self_attn").attention_dropout == (0.5 if dropout else 0.0)
    assert model.config.attention_dropout == 0.5
