"""Weights that change under running requests: what comes before is the old model's, what comes after the new one's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from other_weights import change_weights

from actors.config import EngineConfig, InFlight
from actors.inference.engine import Engine, Response, Sampling
from actors.modeling.models import load_causal_lm
from actors.modeling.packed import PackedBatch
from actors.modeling.packed_models import PackedLM

pytestmark = pytest.mark.slow
PROMPTS = [[5 + n, 6, 7, 8 + n] + [9] * 16 for n in range(6)]
LIMITS = [40, 4, 40, 12, 8, 40]  # two of them run beside four that wait


@pytest.fixture(scope="module")
def models(clinic: Path) -> list[torch.nn.Module]:
    """The engine's model and one that is far from it."""
    old, new = (load_causal_lm(str(clinic / "model"), torch.float32) for _ in range(2))
    change_weights(new)
    return [old, new]


def make(clinic: Path, in_flight: InFlight) -> Iterator[Engine]:
    config = EngineConfig(max_model_len=512, max_concurrent=3, kv_cache_bytes=2**26)
    engine = Engine(str(clinic / "model"), config, in_flight=in_flight)
    yield engine
    engine.close()


@pytest.fixture(scope="module", params=["recompute", "keep"])
def in_flight(request: pytest.FixtureRequest) -> InFlight:
    return request.param


@pytest.fixture(scope="module")
def engine(clinic: Path, in_flight: InFlight) -> Iterator[Engine]:
    yield from make(clinic, in_flight)


def logprobs_of(model: torch.nn.Module, prompt: list[int], answer: Response) -> np.ndarray:
    with torch.no_grad():
        logprobs, _ = PackedLM(model)(PackedBatch.of([prompt + answer.tokens]), 1.0)
    return logprobs.numpy()[len(prompt) - 1 :]


def answers_with_a_change(engine: Engine, new: torch.nn.Module) -> dict[int, Response]:
    """Answers to all prompts; the weights change after the first two of them."""
    answers: dict[int, Response] = {}
    for index, answer in engine.stream(PROMPTS, seeds=[*range(6)], max_new_tokens=LIMITS, sampling=Sampling()):
        answers[index] = answer
        if len(answers) == 2:
            with engine.lock:
                engine.load_weights(new.named_parameters())
    return answers


def test_tokens_before_a_change_are_the_old_models_and_those_after_it_the_new_ones(
    engine: Engine, in_flight: InFlight, models: list[torch.nn.Module]
) -> None:
    old, new = models
    with engine.lock:
        engine.load_weights(old.named_parameters())
    held = engine.weights
    answers = answers_with_a_change(engine, new)
    assert engine.weights == held + 1
    split = 0
    for index, prompt in enumerate(PROMPTS):
        answer = answers[index]
        assert answer.weights == held
        before, after = (logprobs_of(model, prompt, answer) for model in models)
        (at,) = answer.changes or (len(answer.tokens),)
        split += 0 < at < len(answer.tokens)
        np.testing.assert_allclose(answer.logprobs[:at], before[:at], atol=1e-4)
        assert (np.abs(before - after) > 1e-2).any()
        if in_flight == "recompute" or at == 0:
            np.testing.assert_allclose(answer.logprobs[at:], after[at:], atol=1e-4)
        elif at < len(answer.tokens):  # keys and values of the old model, all else of the new one
            assert np.abs(answer.logprobs[at:] - after[at:]).max() > 1e-4
            assert np.abs(answer.logprobs[at:] - before[at:]).max() > 1e-2
    assert split >= 1
    assert sum(answer.changes == (0,) for answer in answers.values()) >= 1


def test_a_probe_comes_between_the_steps_of_a_full_engine(
    engine: Engine, models: list[torch.nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = models
    with engine.lock:
        engine.load_weights(old.named_parameters())
    requests = engine._requests
    steps, step = [0], requests._engine.step

    def counted() -> Any:
        steps[0] += 1
        return step()

    monkeypatch.setattr(requests._engine, "step", counted)
    answers: dict[int, Response] = {}
    stream = engine.stream(PROMPTS, seeds=[*range(6)], max_new_tokens=400, sampling=Sampling())
    reader = Thread(target=lambda: answers.update(stream))
    reader.start()
    while not requests._queue or len(requests._running) < 3:
        time.sleep(0.001)
    with engine.lock:
        engine.load_weights(new.named_parameters())
    assert len(requests._running) == 3
    before = steps[0]
    scores = engine.score(PROMPTS[:5])
    assert steps[0] - before < 10  # and not until an answer ends
    reader.join(60)
    assert sorted(answers) == [*range(6)]
    for prompt, found in zip(PROMPTS, scores, strict=False):
        with torch.no_grad():
            expected, _ = PackedLM(new)(PackedBatch.of([prompt]), 1.0)
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)


def test_prefixes_of_old_weights_serve_no_new_request(engine: Engine, models: list[torch.nn.Module]) -> None:
    old, new = models
    long = [[7] * 64]
    for model in (old, new):
        with engine.lock:
            engine.load_weights(model.named_parameters())
        for _ in range(2):  # the second from what the first left
            (answer,) = engine.generate(long, seeds=[1], max_new_tokens=4)
            np.testing.assert_allclose(answer.logprobs, logprobs_of(model, long[0], answer), atol=1e-4)
