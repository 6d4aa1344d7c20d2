"""The vLLM engine computes what the trainer's model computes, before and after its weights are replaced."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import pytest
import torch
from other_weights import change_weights
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from actors.config import EngineConfig
from actors.inference import reloading
from actors.inference.cpu_sampler import race
from actors.inference.engine import Engine, Sampling
from actors.inference.reloading import ReloadsFolders
from actors.modeling.models import load_causal_lm
from actors.modeling.packed import PackedBatch
from actors.modeling.packed_models import PackedLM
from actors.weight_bits import SentBits
from configs.errors import ConfigError

pytestmark = pytest.mark.slow
PROMPTS = [[5, 6, 7, 8], [9, 10, 11], [12, 13, 14, 15, 16]]


@pytest.fixture(scope="module")
def engine(clinic: Path) -> Iterator[Engine]:
    engine = Engine(str(clinic / "model"), EngineConfig(max_model_len=512, kv_cache_bytes=2**26))
    yield engine
    engine.close()


def trainer_logprobs(model: torch.nn.Module, sequences: list[list[int]], temperature: float = 1.0) -> list[np.ndarray]:
    batch = PackedBatch.of(sequences)
    with torch.no_grad():
        logprobs, _ = PackedLM(model)(batch, temperature)
    return [part.numpy() for part in logprobs.split(batch.target_counts)]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_of_answers_equal_the_trainers(clinic: Path, engine: Engine, temperature: float) -> None:
    model = load_causal_lm(str(clinic / "model"), torch.float32)
    answers = engine.generate(PROMPTS, seeds=[1, 2, 3], max_new_tokens=24, temperature=temperature)
    sequences = [prompt + answer.tokens for prompt, answer in zip(PROMPTS, answers, strict=True)]
    expected = trainer_logprobs(model, sequences, temperature)
    for prompt, answer, logprobs in zip(PROMPTS, answers, expected, strict=True):
        np.testing.assert_allclose(answer.logprobs, logprobs[len(prompt) - 1 :], atol=1e-4)


def test_a_seed_gives_the_same_answer_in_any_company(engine: Engine) -> None:
    together = engine.generate(PROMPTS, seeds=[1, 2, 3], max_new_tokens=16)
    alone = engine.generate(PROMPTS[1:2], seeds=[2], max_new_tokens=16)
    other = engine.generate(PROMPTS[1:2], seeds=[4], max_new_tokens=16)
    assert alone[0].tokens == together[1].tokens != other[0].tokens


@pytest.mark.skipif(torch.cuda.is_available(), reason="an engine on a GPU draws as vLLM does")
def test_a_token_is_drawn_from_the_trainers_distribution_by_the_requests_seed(clinic: Path, engine: Engine) -> None:
    seeds = list(range(60))
    found = engine.generate(PROMPTS[:1] * 60, seeds=seeds, max_new_tokens=1)
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(clinic / "model")(torch.tensor(PROMPTS[:1])).logits[:, -1]
    generators = {row: torch.Generator().manual_seed(seed) for row, seed in enumerate(seeds)}
    expected = race(logits.softmax(-1).expand(60, -1), generators).tolist()
    assert [answer.tokens[0] for answer in found] == expected
    assert len(set(expected)) > 10


def test_new_weights_that_lack_some_are_refused(clinic: Path, engine: Engine) -> None:
    weights = dict(load_causal_lm(str(clinic / "model"), torch.float32).named_parameters())
    for left_out in ("model.norm.weight", "model.layers.1.self_attn.k_proj.weight", "model.embed_tokens.weight"):
        some = {name: tensor for name, tensor in weights.items() if name != left_out}
        layer = left_out.removesuffix(".weight").replace("k_proj", "qkv_proj")
        with pytest.raises(RuntimeError, match=f"incomplete: 1 layers lack some, such as {layer}$"):
            engine.load_weights(some.items())
    engine.load_weights(weights.items())


def test_new_weights_are_used_whole_tied_head_and_prefixes_included(clinic: Path, engine: Engine) -> None:
    model = load_causal_lm(str(clinic / "model"), torch.float32)
    assert model.config.tie_word_embeddings
    before = engine.score(PROMPTS)
    change_weights(model)
    sent = SentBits(torch.float32)
    for block in sent.over_blocks([dict(model.named_parameters())]):
        engine.load_weights(block.items())
    assert engine.bits == sent.total
    after, expected = engine.score(PROMPTS), trainer_logprobs(model, PROMPTS)
    for old, new, logprobs in zip(before, after, expected, strict=True):
        np.testing.assert_allclose(new, logprobs, atol=1e-4)
        assert np.abs(np.array(new) - old).max() > 1e-2


def test_an_answer_ends_at_a_stop_token_and_counts_as_finished(engine: Engine) -> None:
    free = dict(engine.stream(PROMPTS, seeds=[1, 2, 3], max_new_tokens=24, sampling=Sampling()))
    stop = free[0].tokens[5]
    assert stop not in free[0].tokens[:5]
    assert not free[0].finished
    stopped = dict(engine.stream(PROMPTS, seeds=[1, 2, 3], max_new_tokens=24, sampling=Sampling(stop=(stop,))))
    assert stopped[0].tokens == free[0].tokens[:6]
    assert stopped[0].logprobs == pytest.approx(free[0].logprobs[:6], abs=1e-4)
    assert stopped[0].finished


def test_only_the_likeliest_tokens_are_drawn_where_asked_for(engine: Engine) -> None:
    greedy = engine.generate(PROMPTS, seeds=[1, 2, 3], max_new_tokens=8, temperature=0.0)
    for sampling in (Sampling(top_k=1), Sampling(min_p=1.0)):
        answers = dict(engine.stream(PROMPTS, seeds=[1, 2, 3], max_new_tokens=8, sampling=sampling))
        assert [answers[index].tokens for index in range(3)] == [answer.tokens for answer in greedy]


def test_parts_may_be_loaded_by_several_threads(clinic: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    load, at_once, most = reloading.load, 0, 0

    def counted(*given: Any) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        sleep(0.001)  # so that threads would meet
        load(*given)
        at_once -= 1

    monkeypatch.setattr(reloading, "load", counted)
    weights = list(load_causal_lm(str(clinic / "model"), torch.float32).named_parameters())
    sent = SentBits(torch.float32)
    list(sent.over_blocks([dict(weights)]))
    engine.begin_weight_load()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda pair: engine.load_weight_block([pair]), weights))
    engine.end_weight_load()
    assert engine.bits == sent.total
    assert most == 1


def test_an_update_that_failed_half_way_is_followed_by_a_whole_one(clinic: Path, engine: Engine) -> None:
    model = load_causal_lm(str(clinic / "model"), torch.float32)
    for parameter in model.parameters():
        parameter.data *= 1.01
    blocks = [dict([pair]) for pair in model.named_parameters()]
    engine.begin_weight_load()
    for block in blocks[:4]:
        engine.load_weight_block(block.items())
    engine.abandon_weight_load()
    sent = SentBits(torch.float32)
    engine.begin_weight_load()
    for block in sent.over_blocks(blocks):
        engine.load_weight_block(block.items())
    engine.end_weight_load()
    assert engine.bits == sent.total
    for new, logprobs in zip(engine.score(PROMPTS), trainer_logprobs(model, PROMPTS), strict=True):
        np.testing.assert_allclose(new, logprobs, atol=1e-4)


def test_a_folder_replaces_the_weights_whole(clinic: Path, engine: Engine, tmp_path: Path) -> None:
    model = load_causal_lm(str(clinic / "model"), torch.float32)
    change_weights(model, seed=1)
    model.save_pretrained(tmp_path / "new")
    tensors = load_file(tmp_path / "new" / "model.safetensors")
    save_file(tensors | {"lm_head.weight": torch.zeros(1, 1)}, tmp_path / "new" / "model.safetensors", {"format": "pt"})
    engine._llm.collective_rpc(ReloadsFolders.reload_folder, args=(str(tmp_path / "new"),))
    engine.forget_prefixes()
    for new, logprobs in zip(engine.score(PROMPTS), trainer_logprobs(model, PROMPTS), strict=True):
        np.testing.assert_allclose(new, logprobs, atol=1e-4)


def test_answers_come_as_they_finish_and_who_leaves_ends_the_rest(clinic: Path, engine: Engine) -> None:
    limits = [30, 3, 9]
    order = [index for index, _ in engine.stream(PROMPTS, seeds=[1, 2, 3], max_new_tokens=limits, sampling=Sampling())]
    assert order == [1, 2, 0]
    stream = engine.stream(PROMPTS, seeds=[1, 2, 3], max_new_tokens=limits, sampling=Sampling())
    assert next(stream)[0] == 1
    stream.close()
    weights = load_causal_lm(str(clinic / "model"), torch.float32).named_parameters()
    engine.load_weights(weights)  # which is refused while requests run


def test_a_prompt_without_room_is_refused_by_its_number(engine: Engine) -> None:
    with pytest.raises(ValueError, match="prompt 1 has 500 tokens and 24 more are to follow, but the context is 512"):
        engine.generate([[5], [5] * 500], seeds=[0, 0], max_new_tokens=24)


def test_a_missing_folder_is_named() -> None:
    with pytest.raises(ConfigError, match="/nowhere/model"):
        Engine("/nowhere/model", EngineConfig())
