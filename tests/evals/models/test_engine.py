"""vLLM against Transformers. One engine at a time lives in this process, so the tests share it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from actors.model_folder.folders import ModelFolder
from configs.errors import ConfigError
from evals.models.engine import Engine
from evals.result_cache import ResultCache

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = Engine()
    yield engine
    engine.close()


def sequences(*lengths: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(len(lengths))
    return [torch.randint(10, 280, (length,), generator=generator).tolist() for length in lengths]


def logprobs(model: Any, ids: list[int]) -> list[float]:
    """By Transformers: of every token after the first."""
    with torch.no_grad():
        logits_TV = model(input_ids=torch.tensor([ids])).logits[0, :-1]
    return torch.log_softmax(logits_TV, dim=-1)[range(len(ids) - 1), ids[1:]].tolist()


def transformers(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def test_scores_equal_transformers_at_every_length(engine: Engine, make_model: Callable[..., Path]) -> None:
    engine.load(ModelFolder(make_model("a")))
    model = transformers(make_model("a"))
    batch = sequences(2, 40, 1, 255, 128, 129)
    scores = engine.score(batch)
    for ids, score in zip(batch, scores, strict=True):
        assert score == pytest.approx(logprobs(model, ids), abs=1e-4)
    assert max(scores[1]) - min(scores[1]) > 1.0  # else any two models would agree
    assert engine.score([]) == []


def test_next_tokens_weigh_as_in_transformers_with_and_without_cached_prefixes(
    engine: Engine, make_model: Callable[..., Path]
) -> None:
    engine.load(ModelFolder(make_model("a")))
    model, (shared,) = transformers(make_model("a")), sequences(160)
    prompts = [shared + ending for ending in sequences(3, 40, 1, 17)]
    choices = [[20, 30, 40], [20, 30], [5, 6, 7, 8], [11, 250]]
    for prompt, own, weights in zip(prompts, choices, engine.option_logprobs(prompts, choices), strict=True):
        assert weights == pytest.approx([logprobs(model, [*prompt, token])[-1] for token in own], abs=1e-4)
    assert engine.option_logprobs([], []) == []


def test_answers_in_the_ledger_are_not_computed_again(
    engine: Engine, make_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Idle:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"{name} was called")

    prompts, folder = sequences(20, 30), ModelFolder(make_model("a"))
    engine.load(folder)
    monkeypatch.setattr(engine, "_digest", folder.digest)
    monkeypatch.setattr(engine, "_result_cache", ResultCache(tmp_path / "ledger.jsonl"))
    asked = engine.generate(prompts, 8), engine.score(prompts), engine.option_logprobs(prompts, [[5, 6], [7]])
    again = Engine(ResultCache(tmp_path / "ledger.jsonl"))
    again._engine, again._folder, again._digest = Idle(), folder, folder.digest  # type: ignore[assignment]
    assert (again.generate(prompts, 8), again.score(prompts), again.option_logprobs(prompts, [[5, 6], [7]])) == asked


def test_greedy_answers_equal_transformers(engine: Engine, make_model: Callable[..., Path]) -> None:
    engine.load(ModelFolder(make_model("a")))
    model, end = transformers(make_model("a")), engine.folder.end_ids[0]
    prompts = sequences(5, 60, 17)
    for prompt, answer in zip(prompts, engine.generate(prompts, max_tokens=24), strict=True):
        expected = model.generate(
            torch.tensor([prompt]), max_new_tokens=24, do_sample=False, eos_token_id=end, pad_token_id=end
        )[0, len(prompt) :].tolist()
        assert answer.ids == expected
        assert answer.text == engine.folder.tokenizer.decode(expected, skip_special_tokens=True)


def test_the_end_mark_ends_an_answer(engine: Engine, make_model: Callable[..., Path]) -> None:
    engine.load(ModelFolder(make_model("a")))
    answers = engine.generate(sequences(*[8] * 64), max_tokens=200, temperature=1.0)
    end = engine.folder.end_ids[0]
    assert {answer.finished for answer in answers} == {True, False}
    for answer in answers:
        assert answer.finished == (answer.ids[-1] == end)
        assert end not in answer.ids[:-1]
        assert answer.finished or len(answer.ids) == 200
        assert "</s>" not in answer.text


def test_a_sampled_answer_depends_on_its_seed_and_place_alone(engine: Engine, make_model: Callable[..., Path]) -> None:
    engine.load(ModelFolder(make_model("a")))
    prompts = [sequences(9)[0]] * 40
    many = [answer.ids for answer in engine.generate(prompts, 12, temperature=1.0, seed=3)]
    few = [answer.ids for answer in engine.generate(prompts[:3], 12, temperature=1.0, seed=3)]
    assert few == many[:3]
    assert len({tuple(ids) for ids in many}) > 35  # equal prompts, different answers
    assert [answer.ids for answer in engine.generate(prompts[:3], 12, temperature=1.0, seed=4)] != few


def test_many_long_seeded_prompts_do_not_end_the_engine(engine: Engine, make_model: Callable[..., Path]) -> None:
    """More prompt tokens than one step takes: with prompts prefilled in pieces, vLLM fails on a CPU."""
    engine.load(ModelFolder(make_model("a")))
    assert len(engine.generate(sequences(*[190] * 50), 3, temperature=1.0)) == 50


def test_reloaded_weights_score_as_in_a_fresh_engine(engine: Engine, make_model: Callable[..., Path]) -> None:
    first, second = ModelFolder(make_model("a")), ModelFolder(make_model("b", seed=1))
    batch = sequences(30, 200)
    engine.load(first)
    before, started = engine.score(batch), engine._engine
    engine.load(second)
    reloaded, greedy = engine.score(batch), [answer.ids for answer in engine.generate(batch, 20)]
    assert engine._engine is started
    assert max(abs(a - b) for a, b in zip(before[0], reloaded[0], strict=True)) > 0.5
    engine.load(first)
    assert engine.score(batch) == before
    engine.close()
    engine.load(second)
    assert engine._engine is not started
    assert engine.score(batch) == reloaded
    assert [answer.ids for answer in engine.generate(batch, 20)] == greedy
    assert reloaded[1] == pytest.approx(logprobs(transformers(second.path), batch[1]), abs=1e-4)


def test_another_architecture_gets_an_engine_of_its_own(engine: Engine, make_model: Callable[..., Path]) -> None:
    engine.load(ModelFolder(make_model("a")))
    started = engine._engine
    deep = make_model("deep", num_hidden_layers=3)
    engine.load(ModelFolder(deep))
    assert engine._engine is not started
    (ids,) = sequences(50)
    assert engine.score([ids])[0] == pytest.approx(logprobs(transformers(deep), ids), abs=1e-4)


def test_a_sample_longer_than_the_context_is_named_with_both_numbers(
    engine: Engine, make_model: Callable[..., Path]
) -> None:
    engine.load(ModelFolder(make_model("a")))
    with pytest.raises(
        ConfigError,
        match=r"held-out text: sample 1 has 256 tokens; .* takes 1 to 255 .*context is 256, the model's 256",
    ):
        engine.score([[5], [5] * 256], label="held-out text")
    with pytest.raises(ConfigError, match=r"questions: sample 0 has 255 tokens; .* takes 1 to 254"):
        engine.generate([[5] * 255], 10, label="questions")
    with pytest.raises(ConfigError, match="sample 0 has 0 tokens"):
        engine.generate([[]], 10)
    (answer,) = engine.generate([[5] * 250], 10)
    assert len(answer.ids) <= 5
    engine.score([[5] * 250 + answer.ids])


def test_without_a_model_there_is_no_answer() -> None:
    with pytest.raises(RuntimeError, match="no model is loaded"):
        Engine().generate([[1]], 1)


def test_every_end_of_the_checkpoint_ends_an_answer(
    engine: Engine, make_model: Callable[..., Path], tmp_path: Path
) -> None:
    shutil.copytree(make_model("a"), tmp_path / "two")
    (tmp_path / "two" / "generation_config.json").write_text('{"eos_token_id": [2, 50]}')
    folder = ModelFolder(tmp_path / "two")
    assert folder.end_ids == (2, 50)
    engine.load(folder)
    answers = engine.generate(sequences(*[8] * 64), max_tokens=200, temperature=1.0)
    assert {answer.ids[-1] for answer in answers if answer.finished} == {2, 50}
    for answer in answers:
        assert not {2, 50} & set(answer.ids[:-1])
        text = answer.ids[:-1] if answer.finished else answer.ids
        assert answer.text == folder.tokenizer.decode(text, skip_special_tokens=True)
