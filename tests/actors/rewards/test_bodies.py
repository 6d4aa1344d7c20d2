"""The two forms of bodies; that of the project's own endpoint against its real routes."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import pytest
import uvicorn

from actors.rewards.bodies import CONVERSATIONS, SAMPLES
from actors.rewards.config import MOST_CONVERSATIONS, SCORE_ROUTE, HttpRewardConfig
from actors.rewards.http import RemoteReward
from actors.rewards.sample import RewardFunctionError, Sample
from cluster import metrics
from data.chat import check_messages
from data.tables import DataError
from serve.config import LimitsConfig
from serve.gateway.calls import Gate
from serve.gateway.limits import RateLimits
from serve.gateway.routes import Models, make_app
from serve.keys import Keyring
from serve.replies import EngineRequest, EngineState, Refusal, Reply
from serve.requests import ScoreRequest

MakeSamples = Callable[[int], list[Sample]]


class LengthScorer:
    """A backend whose reward model gives an answer's length, negated if it was cut off; refuses what the real one does."""

    async def answer(self, model: str, request: EngineRequest) -> AsyncGenerator[Reply, None]:
        raise AssertionError
        yield

    async def score(self, conversations: list[list[dict[str, str]]], cut_off: list[bool]) -> dict[str, Any] | Refusal:
        for index, messages in enumerate(conversations):
            try:
                check_messages(messages)
            except DataError as error:
                return Refusal(400, f"conversations.{index}: {error}", f"conversations.{index}")
        lengths = [len(messages[-1]["content"]) for messages in conversations]
        return {"scores": [float(-n if cut else n) for n, cut in zip(lengths, cut_off, strict=True)], "tokens": 1}

    async def ready(self, timeout_s: float) -> dict[str, EngineState]:
        return {}


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of the project's own score route."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for kind, method in ((metrics.Counter, "inc"), (metrics.Gauge, "set"), (metrics.Histogram, "observe")):
        monkeypatch.setattr(kind, method, lambda *told, **labels: None)
    limits = LimitsConfig()
    app = make_app(
        LengthScorer(), Gate(Keyring([]), RateLimits(limits)), Models({"ppo": 512}, "reward_function"), limits
    )
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}{SCORE_ROUTE}"
    server.should_exit = True
    thread.join(timeout=30)


def test_a_served_reward_model_scores(served: str, make_samples: MakeSamples) -> None:
    reward_function = RemoteReward("served", HttpRewardConfig(url=served, batch_size=3))
    samples = make_samples(8)
    for sample in samples:
        sample["response"] += "。" * sample["prompt_id"]
    expected = [len(sample["response"]) * (1 if sample["finished"] else -1) for sample in samples]
    assert reward_function.score(samples) == expected


def test_what_the_served_reward_model_refuses_names_its_sample(served: str, make_samples: MakeSamples) -> None:
    samples = make_samples(8)
    samples[5]["response"] = "好</s>"
    with pytest.raises(RewardFunctionError) as failure:
        RemoteReward("served", HttpRewardConfig(url=served, batch_size=3)).score(samples)
    where = (
        f"reward 'served': {served}, batch 2 of 3, try 1: status 400 for prompt 2 sample 1 (prompt '病人2头痛怎么办？'"
    )
    assert str(failure.value).startswith(where)
    assert "chat: turn 1 (assistant): contains the reserved mark" in str(failure.value)


def test_our_endpoint_takes_as_many_conversations_as_said(make_samples: MakeSamples) -> None:
    def body(count: int) -> dict[str, Any]:
        return CONVERSATIONS.write(make_samples(count))

    assert len(ScoreRequest.model_validate(body(MOST_CONVERSATIONS)).conversations) == MOST_CONVERSATIONS
    with pytest.raises(ValueError, match=f"at most {MOST_CONVERSATIONS} items"):
        ScoreRequest.model_validate(body(MOST_CONVERSATIONS + 1))


def test_conversations_end_with_the_answer(make_samples: MakeSamples) -> None:
    samples = make_samples(2)
    assert CONVERSATIONS.write(samples[:1]) == {
        "conversations": [
            [
                {"role": "user", "content": "病人0头痛怎么办？"},
                {"role": "assistant", "content": "第0个回答：请及时就医。"},
            ]
        ],
        "cut_off": [True],
    }
    assert CONVERSATIONS.write(samples)["cut_off"] == [True, False]
    assert SAMPLES.write(samples) == {"samples": samples}


@pytest.mark.parametrize(
    "reply",
    [
        {},
        None,
        {"data": None},
        {"data": [1.0]},
        {"data": [{"index": 0}]},
        {"data": [{"index": 1, "score": 0.0}, {"index": 0, "score": 0.0}]},
        {"data": [{"index": 0, "score": 0.0}, {"index": 2, "score": 0.0}]},
    ],
)
def test_scores_must_look_like_ours(reply: Any) -> None:
    with pytest.raises((LookupError, TypeError)):
        CONVERSATIONS.read(reply)


def test_scores_are_read() -> None:
    assert CONVERSATIONS.read({"data": [{"index": 0, "score": 2.5}, {"index": 1, "score": -1.0}]}) == [2.5, -1.0]
