"""The whole endpoint: Ray Serve, its proxy, two vLLM engines and a reward model, asked by OpenAI's own client."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]

KEY = "a-key-for-this-test"
ASK: Any = [{"role": "user", "content": "3号病人头痛怎么办？"}]
START_S = 120.0


@dataclass(frozen=True)
class Endpoint:
    url: str
    arguments: dict[str, Any]
    other_weights: Path

    @property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=KEY, max_retries=0, timeout=60)

    def post(self, path: str, body: Any, key: str = KEY) -> httpx.Response:
        return httpx.post(self.url + path, json=body, headers={"Authorization": f"Bearer {key}"}, timeout=60)


@pytest.fixture(scope="module")
def endpoint(ray_cluster: None, make_model: Callable[..., Path]) -> Iterator[Endpoint]:
    from ray import serve

    from serve.app import build

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    arguments = {
        "model": f"tiny={make_model('a')}",
        "reward_model": f"judge={make_model('judge', seed=3, reward=True)}",
        "engine": {"max_model_len": 256, "kv_cache_bytes": 2**26},
        "replicas": {"count": 2, "threads": 1, "cpus": 0.5},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHIMED_API_KEYS", KEY)
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(build(arguments), name="endpoint")
        endpoint = Endpoint(f"http://127.0.0.1:{port}", arguments, make_model("b", seed=1))
        _wait(lambda: httpx.get(f"{endpoint.url}/ready", timeout=10).status_code == 200, "the endpoint to be ready")
        yield endpoint
        serve.shutdown()


def _wait(done: Callable[[], bool], what: str, seconds: float = START_S) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.5)


def expected(folder: Path, prompt: list[int], answer: list[int]) -> list[float]:
    """Log-probabilities of `answer` after `prompt` by Transformers."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.inference_mode():
        logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    return torch.log_softmax(logits.double(), -1)[range(len(answer)), answer].tolist()


def echoed(endpoint: Endpoint, answer: str) -> tuple[list[int], list[int], list[float | None]]:
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


def engine_state(endpoint: Endpoint) -> dict[str, Any]:
    """Of one of the engines, whichever answers."""
    state: dict[str, Any] = httpx.get(f"{endpoint.url}/ready", timeout=10).json()["engines"]["tiny"]
    return state


def test_chat_whole_and_streamed_say_the_same(endpoint: Endpoint) -> None:
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


def test_log_probabilities_are_those_of_the_model(endpoint: Endpoint) -> None:
    prompt, ids, found = echoed(endpoint, "建议多休息，按时服药。")
    folder = Path(str(endpoint.arguments["model"]).partition("=")[2])
    assert found == pytest.approx(expected(folder, prompt, ids), abs=1e-4)


def test_the_same_seed_gives_the_same_answer(endpoint: Endpoint) -> None:
    def sample(seed: int) -> str | None:
        answer = endpoint.client.chat.completions.create(model="tiny", messages=ASK, max_tokens=16, seed=seed)
        return answer.choices[0].message.content

    assert sample(1) == sample(1) != sample(2)


def test_scores_are_those_of_the_reward_model(endpoint: Endpoint) -> None:
    from actors.folders import ModelFolder
    from data.chat import encode_chat
    from evals.reward_model import RewardModel

    folder = ModelFolder(str(endpoint.arguments["reward_model"]).partition("=")[2])
    chats = [[*ASK, {"role": "assistant", "content": text}] for text in ("多休息。", "别来烦我，自己去查。", "服药")]
    scored = endpoint.post("/v1/score", {"conversations": chats}).json()
    wanted = RewardModel(folder).score([encode_chat(folder.tokenizer, chat)[0] for chat in chats])
    assert [each["score"] for each in scored["data"]] == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"model": "gpt"}, 404, r"The model 'gpt' is not here; this endpoint has 'tiny'\."),
        ({"max_tokens": 100_000}, 400, r"100000.*256"),
        (
            {"messages": [{"role": "user", "content": "头痛" * 300}]},
            400,
            r"The prompt has \d+ tokens and the context is 256",
        ),
        ({"messages": [{"role": "nurse", "content": "x"}]}, 400, r"messages\.0\.role"),
        ({"temperature": 9}, 400, r"temperature: Input should be less than or equal to 2"),
    ],
)
def test_bad_requests(endpoint: Endpoint, change: dict[str, Any], status: int, message: str) -> None:
    with pytest.raises(openai.APIStatusError, match=message) as refused:
        endpoint.client.chat.completions.create(**{"model": "tiny", "messages": ASK, **change})
    assert refused.value.status_code == status
    assert refused.value.response.headers["x-request-id"]


def test_a_wrong_key_is_refused(endpoint: Endpoint) -> None:
    answer = endpoint.post("/v1/chat/completions", {"model": "tiny", "messages": ASK}, key="not-a-key-of-this-endpoint")
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert httpx.get(f"{endpoint.url}/v1/models").status_code == 401


def test_a_client_that_goes_away_ends_its_generation(endpoint: Endpoint) -> None:
    ask = {"model": "tiny", "messages": ASK, "max_tokens": 200, "temperature": 0, "extra_body": {"ignore_eos": True}}
    begun = time.monotonic()
    endpoint.client.chat.completions.create(**ask)
    whole_s = time.monotonic() - begun
    for _ in range(8):
        stream = endpoint.client.chat.completions.create(**ask, stream=True)
        next(iter(stream))
        stream.close()
    idle = lambda: all(engine_state(endpoint)["unfinished"] == 0 for _ in range(6))  # noqa: E731
    _wait(idle, "aborted requests to leave the engines", max(10.0, 3 * whole_s))


def test_weights_are_taken_over_without_a_failed_request(endpoint: Endpoint) -> None:
    """Requests go on while the engines take over other weights; then the answers are the other model's."""
    from ray import serve

    from serve.app import build

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

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHIMED_API_KEYS", KEY)
        serve.run(build({**endpoint.arguments, "weights": f"tiny={endpoint.other_weights}"}), name="endpoint")

    def other_everywhere() -> bool:
        return {engine_state(endpoint)["weights"] for _ in range(6)} == {str(endpoint.other_weights)}

    _wait(other_everywhere, "both engines to take over the weights")
    stop.set()
    for thread in threads:
        thread.join(timeout=60)
    assert failures == []
    for _ in range(4):  # whichever engine answers
        prompt, ids, found = echoed(endpoint, "建议多休息。")
        assert found == pytest.approx(expected(endpoint.other_weights, prompt, ids), abs=1e-4)
    assert len(set(answers)) == 2  # the old model's answer, then the new one's, and never a mixture


def test_an_engine_that_is_killed_is_not_noticed(endpoint: Endpoint) -> None:
    """Whole answers move to the other engine; the dead one is replaced."""
    import ray
    from ray.util.state import list_actors

    def engines() -> set[int]:
        address = ray.get_runtime_context().gcs_address
        rows = list_actors(address=address, filters=[("state", "=", "ALIVE")], detail=True)
        return {row.pid for row in rows if "engine:tiny" in (row.name or "") and row.pid}

    before = engines()
    assert len(before) == 2
    killed = min(before)
    failures = 0
    for turn in range(40):
        if turn == 5:
            os.kill(killed, signal.SIGKILL)
        answer = endpoint.post("/v1/chat/completions", {"model": "tiny", "messages": ASK, "max_tokens": 8})
        failures += answer.status_code != 200
    assert failures == 0
    _wait(lambda: len(engines() - {killed}) == 2, "the engine to be replaced")
