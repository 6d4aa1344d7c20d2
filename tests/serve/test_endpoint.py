"""The whole endpoint: Ray Serve, its proxy, two vLLM engines and a reward model, asked by OpenAI's own client."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(420)]

ASK: Any = [{"role": "user", "content": "3号病人头痛怎么办？"}]


def expected(folder: Path, prompt: list[int], answer: list[int]) -> list[float]:
    """Log-probabilities of `answer` after `prompt` by Transformers."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.inference_mode():
        logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    return torch.log_softmax(logits.double(), -1)[range(len(answer)), answer].tolist()


def echoed(endpoint: Any, answer: str) -> tuple[list[int], list[int], list[float | None]]:
    """Tokens of a prompt and of `answer`, and the answer's log-probabilities as the endpoint says."""
    prompt = endpoint.post("/tokenize", {"messages": ASK}).json()["tokens"]
    ids = endpoint.post("/tokenize", {"prompt": answer}).json()["tokens"]
    reply = endpoint.client.completions.create(
        model="tiny", prompt=prompt + ids, max_tokens=1, temperature=0, logprobs=0, echo=True
    )
    logprobs = reply.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.token_logprobs is not None
    return prompt, ids, list(logprobs.token_logprobs[len(prompt) : len(prompt) + len(ids)])


def test_chat_whole_and_streamed_say_the_same(endpoint: Any) -> None:
    ask = {"model": "tiny", "messages": ASK, "max_tokens": 24, "temperature": 0, "logprobs": True}
    whole = endpoint.client.chat.completions.create(**ask)
    assert whole.usage is not None
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    chunks = list(endpoint.client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
    assert (
        "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        == whole.choices[0].message.content
    )
    assert chunks[-1].usage == whole.usage
    assert whole.choices[0].logprobs is not None
    assert whole.choices[0].logprobs.content is not None
    assert len(whole.choices[0].logprobs.content) == whole.usage.completion_tokens
    unasked = list(endpoint.client.chat.completions.create(**ask, stream=True))
    assert all(chunk.usage is None for chunk in unasked)


def test_log_probabilities_are_those_of_the_model(endpoint: Any) -> None:
    prompt, ids, found = echoed(endpoint, "建议多休息，按时服药。")
    folder = Path(str(endpoint.arguments["model"]).partition("=")[2])
    assert found == pytest.approx(expected(folder, prompt, ids), abs=1e-4)


def test_the_same_seed_gives_the_same_answer(endpoint: Any) -> None:
    def sample(seed: int) -> str | None:
        answer = endpoint.client.chat.completions.create(model="tiny", messages=ASK, max_tokens=16, seed=seed)
        return answer.choices[0].message.content

    assert sample(1) == sample(1) != sample(2)


def test_scores_are_those_of_the_reward_model(endpoint: Any) -> None:
    from actors.model_folder.folders import ModelFolder
    from data.chat import encode_chat
    from evals.models.reward_model import RewardModel

    folder = ModelFolder(str(endpoint.arguments["reward_model"]).partition("=")[2])
    chats = [[*ASK, {"role": "assistant", "content": text}] for text in ("多休息。", "别来烦我，自己去查。", "服药")]
    scored = endpoint.post("/v1/score", {"conversations": chats}).json()
    wanted = RewardModel(folder).score([encode_chat(folder.tokenizer, chat)[0] for chat in chats])
    assert [each["score"] for each in scored["data"]] == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"model": "gpt"}, 404, r"The model 'gpt' does not exist; this endpoint has 'tiny'\."),
        ({"max_tokens": 100_000}, 400, r"max_tokens is 100,000, and the context is 1,024: request at most [\d,]+"),
        (
            {"messages": [{"role": "user", "content": "头痛" * 1200}]},
            400,
            r"The prompt has [\d,]+ tokens and the context is 1,024",
        ),
        ({"messages": [{"role": "nurse", "content": "x"}]}, 400, r"messages\.0\.role"),
        ({"temperature": 9}, 400, r"temperature: Input should be less than or equal to 2"),
    ],
)
def test_bad_requests(endpoint: Any, change: dict[str, Any], status: int, message: str) -> None:
    with pytest.raises(openai.APIStatusError, match=message) as refused:
        endpoint.client.chat.completions.create(**{"model": "tiny", "messages": ASK, **change})
    assert refused.value.status_code == status
    assert refused.value.response.headers["x-request-id"]


def test_a_wrong_key_is_refused(endpoint: Any) -> None:
    answer = endpoint.post("/v1/chat/completions", {"model": "tiny", "messages": ASK}, key="not-a-key-of-this-endpoint")
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert httpx.get(f"{endpoint.url}/v1/models").status_code == 401


def test_a_client_that_goes_away_ends_its_generation(endpoint: Any) -> None:
    ask = {"model": "tiny", "messages": ASK, "max_tokens": 200, "temperature": 0, "extra_body": {"ignore_eos": True}}
    begun = time.monotonic()
    endpoint.client.chat.completions.create(**ask)
    whole_s = time.monotonic() - begun
    for _ in range(8):
        stream = endpoint.client.chat.completions.create(**ask, stream=True)
        next(iter(stream))
        stream.close()
    idle = lambda: all(endpoint.engine()["unfinished"] == 0 for _ in range(6))  # noqa: E731
    endpoint.wait(idle, "aborted requests to leave the engines", max(10.0, 3 * whole_s))


def test_weights_are_taken_over_without_a_failed_request(endpoint: Any) -> None:
    """Requests go on while the engines take over other weights; then the answers are the other model's."""
    from ray import serve

    failures: list[Exception] = []
    answers: list[str | None] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            try:
                reply = endpoint.client.chat.completions.create(
                    model="tiny", messages=ASK, max_tokens=16, temperature=0
                )
                answers.append(reply.choices[0].message.content)
            except openai.OpenAIError as error:
                failures.append(error)
            stop.wait(0.1)  # so that the engines' processors are not all taken by clients

    before = endpoint.replica_pids()
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    serve.run(endpoint.build(weights=f"tiny={endpoint.other_weights}"), name="endpoint")

    def other_everywhere() -> bool:
        return {endpoint.engine()["weights"] for _ in range(6)} == {str(endpoint.other_weights)}

    endpoint.wait(other_everywhere, "both engines to take over the weights")
    stop.set()
    for thread in threads:
        thread.join(timeout=60)
    assert failures == []
    assert endpoint.replica_pids() == before
    for _ in range(4):  # whichever engine answers
        prompt, ids, found = echoed(endpoint, "建议多休息。")
        assert found == pytest.approx(expected(endpoint.other_weights, prompt, ids), abs=1e-4)
    assert len(set(answers)) == 2  # the old model's answer, then the new one's, and never a mixture


def test_an_engine_that_is_killed_is_not_noticed(endpoint: Any) -> None:
    """Whole answers move to the other engine; the dead one is replaced."""
    before = endpoint.replica_pids("engine:tiny")
    assert len(before) == 2
    killed = min(before)
    failures = 0
    for turn in range(40):
        if turn == 5:
            os.kill(killed, signal.SIGKILL)
        answer = endpoint.post("/v1/chat/completions", {"model": "tiny", "messages": ASK, "max_tokens": 8})
        failures += answer.status_code != 200
    assert failures == 0
    endpoint.wait(lambda: len(endpoint.replica_pids("engine:tiny") - {killed}) == 2, "the engine to be replaced")
