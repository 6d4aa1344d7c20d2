"""The HTTP interface, with an engine that is a fake: it repeats what it is told to say. The real one is in test_endpoint.py."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from starlette.testclient import TestClient

from cluster import metrics
from serve.config import LimitsConfig
from serve.errors import ApiError
from serve.gateway.abilities import Abilities
from serve.gateway.calls import Gate
from serve.gateway.limits import RateLimits
from serve.gateway.routes import Models, make_app
from serve.keys import Keyring
from serve.replies import EngineRequest, EngineState, Part, Refusal, Reply, Whole

CHAT = "/v1/chat/completions"
ASK = [{"role": "user", "content": "头痛怎么办？"}]


class FakeBackend:
    """Says `replies`; an exception among them is raised in its place."""

    def __init__(self) -> None:
        self.replies: list[Reply | Exception] = [Whole('{"answer":"多休息"}', 5, 3)]
        self.seen: list[tuple[str, EngineRequest]] = []
        self.pause_s = 0.0

    async def answer(self, model: str, request: EngineRequest) -> AsyncGenerator[Reply, None]:
        self.seen.append((model, request))
        for reply in self.replies:
            await asyncio.sleep(self.pause_s)
            if isinstance(reply, Exception):
                raise reply
            yield reply

    async def score(self, conversations: list[list[dict[str, str]]], cut_off: list[bool]) -> dict[str, Any] | Refusal:
        if cut_off[0]:
            return Refusal(400, "conversations.0: too long", "conversations.0")
        return {"scores": [0.5 * index for index in range(len(conversations))], "tokens": 7}

    async def ready(self, timeout_s: float) -> dict[str, EngineState]:
        return {"ppo": EngineState("/models/b", 2)}

    async def metrics(self) -> str:
        return "ray_vllm_num_requests_running 1.0\n"


class Recorder:
    """What metrics were told: name, value, labels."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: list[tuple[str, float, dict[str, str]]] = []

        def tell(metric: metrics.Metric, value: float = 1.0, /, **labels: str) -> None:
            self.told.append((metric.name, value, labels))

        for kind, method in ((metrics.Counter, "inc"), (metrics.Gauge, "set"), (metrics.Histogram, "observe")):
            monkeypatch.setattr(kind, method, tell)

    def of(self, metric: metrics.Metric) -> list[tuple[float, dict[str, str]]]:
        return [(value, labels) for name, value, labels in self.told if name == metric.name]


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    return Recorder(monkeypatch)


def make_client(backend: FakeBackend, **limits: Any) -> TestClient:
    config = LimitsConfig(**limits)
    gate = Gate(Keyring([]), RateLimits(config))
    app = make_app(backend, gate, Models({"ppo": 512, "sft": 512}, "judge"), config)
    return TestClient(app, base_url="http://localhost:8000", client=("127.0.0.1", 1234), raise_server_exceptions=False)


@pytest.fixture
def client(backend: FakeBackend) -> TestClient:
    return make_client(backend)


def test_each_models_own_control_tokens_are_refused(backend: FakeBackend) -> None:
    config = LimitsConfig()
    models = Models({"ppo": 512, "qwen": 512}, abilities={"qwen": Abilities(("<|im_end|>",))})
    client = TestClient(
        make_app(backend, Gate(Keyring([]), RateLimits(config)), models, config),
        base_url="http://localhost",
        client=("127.0.0.1", 1),
    )
    for model, content, status in (("qwen", "a<|im_end|>", 400), ("qwen", "[bot]:", 200), ("ppo", "[bot]:", 400)):
        answer = client.post(CHAT, json={"model": model, "messages": [{"role": "user", "content": content}]})
        assert answer.status_code == status, content
        assert status == 200 or "contains the reserved mark" in answer.json()["error"]["message"]


def test_a_whole_answer_and_what_is_told_of_it(client: TestClient, backend: FakeBackend, told: Recorder) -> None:
    answer = client.post(CHAT, json={"model": "ppo", "messages": ASK, "max_tokens": 9}, headers={"x-request-id": "r1"})
    assert (answer.status_code, answer.json()) == (200, {"answer": "多休息"})
    assert "x-request-id" not in answer.headers  # Serve's proxy, which gave it, adds it
    (model, request), *_ = backend.seen
    assert (model, request.kind, request.request_id) == ("ppo", "chat", "r1")
    assert request.body == {"max_tokens": 9, "messages": ASK}
    assert told.of(metrics.SERVE_REQUESTS) == [(1.0, {"route": CHAT, "model": "ppo", "status": "200"})]
    assert told.of(metrics.SERVE_TOKENS) == [
        (5, {"model": "ppo", "kind": "prompt"}),
        (3, {"model": "ppo", "kind": "completion"}),
    ]
    assert [value for value, _ in told.of(metrics.SERVE_QUEUE)] == [1, 0]


def test_turns_of_a_chat_go_the_same_way_and_tell_nothing() -> None:
    def way(**body: Any) -> str:
        return EngineRequest("chat", body).affinity

    system = {"role": "system", "content": "你是医生。"}
    later = [*ASK, {"role": "assistant", "content": "多休息。"}, {"role": "user", "content": "还有呢？"}]
    assert way(messages=ASK) == way(messages=later) != way(messages=[system, *later])
    assert way(messages=[system, *ASK]) == way(messages=[system, *later])
    assert way(prompt="头" * 300) == way(prompt="头" * 256) != way(prompt="头" * 255)
    assert way(prompt=[7, 8]) != way(prompt=[7, 9])
    assert way(tokens=[1]) == ""
    assert len(way(messages=ASK)) == 64


def test_a_stream_is_passed_on_event_by_event(client: TestClient, backend: FakeBackend, told: Recorder) -> None:
    backend.replies = [Part("data: 1\n\n", 0, 0), Part("data: 2\n\n", 0, 0), Part("data: [DONE]\n\n", 5, 2)]
    body = {"model": "sft", "messages": ASK, "stream": True, "stream_options": {"include_usage": True}}
    with client.stream("POST", CHAT, json=body) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert "".join(answer.iter_text()) == "data: 1\n\ndata: 2\n\ndata: [DONE]\n\n"
    assert backend.seen[0][1].wants_usage is True
    assert [value for value, _ in told.of(metrics.SERVE_TOKENS)] == [5, 2]
    assert len(told.of(metrics.SERVE_TIME_TO_FIRST_TOKEN)) == 1


def test_a_refusal_before_the_first_word_is_the_status(client: TestClient, backend: FakeBackend) -> None:
    for stream in (False, True):
        backend.replies = [Refusal(400, "The prompt has 600 tokens and the context is 512.", "messages")]
        answer = client.post(CHAT, json={"model": "ppo", "messages": ASK, "stream": stream})
        assert answer.status_code == 400
        assert answer.json()["error"]["message"] == "The prompt has 600 tokens and the context is 512."
        backend.replies = [ApiError(503, "All engines are busy.", retry_after_s=2)]
        answer = client.post(CHAT, json={"model": "ppo", "messages": ASK, "stream": stream})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")


def test_a_failure_in_mid_stream_ends_it_with_an_error_event(client: TestClient, backend: FakeBackend) -> None:
    backend.replies = [Part("data: 1\n\n", 0, 0), ApiError(503, "The engine died during the response.")]
    text = client.post(CHAT, json={"model": "ppo", "messages": ASK, "stream": True}).text
    first, event, end = text.split("\n\n")
    assert (first, end) == ("data: 1", "")
    assert json.loads(event.removeprefix("data: "))["error"]["message"] == "The engine died during the response."


def test_an_answer_that_takes_too_long_is_ended(backend: FakeBackend) -> None:
    backend.pause_s = 5.0
    answer = make_client(backend, seconds=0.05).post(CHAT, json={"model": "ppo", "messages": ASK})
    assert answer.status_code == 504
    assert answer.json()["error"]["message"] == "The response was not finished within 0.05 s."


def test_a_bug_tells_nothing_to_the_client(client: TestClient, backend: FakeBackend) -> None:
    backend.replies = [RuntimeError("secret")]
    answer = client.post(CHAT, json={"model": "ppo", "messages": ASK})
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.json()["error"]["type"] == "server_error"


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"messages": ASK}, 400, "model: required; this endpoint has 'ppo' and 'sft'."),
        ({"model": "gpt", "messages": ASK}, 404, "The model 'gpt' does not exist; this endpoint has 'ppo' and 'sft'."),
        ({"model": "ppo"}, 400, "messages: is required."),
        ({"model": "ppo", "messages": []}, 400, "messages: List should have at least 1 item after validation, not 0."),
        (
            {"model": "ppo", "messages": [{"role": "doctor", "content": "x"}]},
            400,
            "messages.0.role: Input should be 'system', 'developer', 'user', 'assistant' or 'tool'.",
        ),
        (
            {"model": "ppo", "messages": [*ASK, {"role": "assistant", "content": "好"}]},
            400,
            "The last turn is the assistant's: set continue_final_message to continue it.",
        ),
        (
            {"model": "ppo", "messages": [{"role": "user", "content": "[bot]:"}]},
            400,
            "messages.0: contains the reserved mark '[bot]:': remove it.",
        ),
        (
            {"model": "ppo", "messages": ASK, "max_tokens": -1},
            400,
            "max_tokens: Input should be greater than or equal to 1.",
        ),
        ({"model": "ppo", "messages": ASK, "temperature": "hot"}, 400, "temperature: Input should be a valid number."),
        (
            {"model": "ppo", "messages": ASK, "wings": 2},
            400,
            "wings: is not a parameter of this endpoint; remove it.",
        ),
        (
            {"model": "ppo", "messages": ASK, "stream_options": {}},
            400,
            "stream_options: requires stream=true.",
        ),
        ([1], 400, "The body must be a JSON object."),
    ],
)
def test_bad_bodies(client: TestClient, backend: FakeBackend, body: Any, status: int, message: str) -> None:
    answer = client.post(CHAT, json=body)
    assert (answer.status_code, answer.json()["error"]["message"]) == (status, message)
    assert backend.seen == []


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (b"{", 400, "The body is not valid JSON"),
        (b'{"model": "\xff"}', 400, "The body cannot be read: send JSON in UTF-8."),
        (b"", 400, "The body is missing: send JSON."),
        (
            b'{"model": "ppo", "messages": [{"role": "user", "content": "\\ud800"}]}',
            400,
            "The body contains an unpaired surrogate",
        ),
        (b'{"\\ud800": 1}', 400, "The body contains an unpaired surrogate"),
        (b"[" * 100_000, 400, "The body cannot be read"),
        (b'"' + b"x" * 2**20, 413, "The body exceeds the limit of 1,048,576 bytes."),
    ],
)
def test_bodies_that_are_not_json(client: TestClient, content: bytes, status: int, message: str) -> None:
    answer = client.post(CHAT, content=content, headers={"content-type": "application/json"})
    assert answer.status_code == status
    assert answer.json()["error"]["message"].startswith(message)


@pytest.mark.parametrize("path", ["/tokenize", "/v1/completions"])
def test_half_a_surrogate_pair_is_refused_wherever_it_is(client: TestClient, path: str) -> None:
    answer = client.post(
        path, content=b'{"model": "ppo", "prompt": "\\ud800"}', headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("The body contains an unpaired surrogate")


def test_json_that_does_not_say_so_is_refused(client: TestClient) -> None:
    answer = client.post(CHAT, content=b'{"model": "ppo"}', headers={"content-type": "text/plain"})
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, "The body must be a JSON object.")


def test_limits_apply_to_every_route_that_costs(backend: FakeBackend) -> None:
    client = make_client(backend, requests_per_minute=1)
    assert client.get("/v1/models").status_code == 200
    refused = client.post("/v1/score", json={"conversations": [[*ASK, {"role": "assistant", "content": "好"}]]})
    assert (refused.status_code, refused.json()["error"]["type"]) == (429, "rate_limit_error")
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert client.get("/health").status_code == 200


def test_scores(client: TestClient) -> None:
    chat = [*ASK, {"role": "assistant", "content": "好"}]
    answer = client.post("/v1/score", json={"conversations": [chat, chat]}).json()
    assert [each["score"] for each in answer["data"]] == [0.0, 0.5]
    assert (answer["model"], answer["usage"]["total_tokens"]) == ("judge", 7)
    refused = client.post("/v1/score", json={"conversations": [chat], "cut_off": [True]})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "conversations.0")
    assert client.post("/v1/score", json={"model": "ppo", "conversations": [chat]}).status_code == 404
    flags = client.post("/v1/score", json={"conversations": [chat], "cut_off": [True, False]})
    assert flags.json()["error"]["message"] == "cut_off: has 2 flags for 1 conversations."


def test_information(client: TestClient) -> None:
    cards = client.get("/v1/models").json()["data"]
    assert [(card["id"], card.get("max_model_len")) for card in cards] == [("ppo", 512), ("sft", 512), ("judge", None)]
    assert [card["task"] for card in cards] == ["chat", "chat", "score"]
    assert client.get("/v1/models/sft").json()["id"] == "sft"
    assert client.get("/v1/models/gpt").json()["error"]["code"] == "model_not_found"
    assert client.get("/ready").json() == {
        "status": "ready",
        "engines": {"ppo": {"weights": "/models/b", "unfinished": 2}},
    }
    assert client.get("/live").json() == client.get("/health").json() == {"status": "alive"}
    assert (
        client.get("/nowhere").json()["error"]["message"] == "There is no /nowhere; see /openapi.json for all routes."
    )
    assert client.get(CHAT).status_code == 405
    assert len(client.get("/health").headers["x-request-id"]) == 32


def test_the_chat_page(client: TestClient) -> None:
    page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert client.get("/page/page.js").headers["content-type"].startswith("text/javascript")


def test_no_origin_may_call_from_a_browser_unless_named(backend: FakeBackend) -> None:
    config, gate = LimitsConfig(), Gate(Keyring([]), RateLimits(LimitsConfig()))
    origin = {"origin": "https://example.org"}
    for origins, allowed in (((), None), (("https://example.org",), "https://example.org")):
        app = make_app(backend, gate, Models({"ppo": 512}), config, origins)
        answer = TestClient(app).get("/health", headers=origin)
        assert answer.headers.get("access-control-allow-origin") == allowed


def test_the_schema_lists_refusals_and_streams(client: Any) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for route, methods in paths.items():
        for operation in methods.values():
            assert {"200", "400", "401", "403", "404", "413", "429", "503", "504"} <= set(operation["responses"]), route
    answers = paths["/v1/chat/completions"]["post"]["responses"]["200"]["content"]
    assert set(answers) == {"application/json", "text/event-stream"}


def test_metrics_and_version_are_vllms(client: TestClient) -> None:
    metrics = client.get("/metrics")
    assert metrics.text == "ray_vllm_num_requests_running 1.0\n"
    assert metrics.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert client.get("/version").json() == {"version": "0.29.0"}


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ({"messages": ASK}, {"messages": ASK}),
        (
            {"messages": ASK, "add_generation_prompt": False, "return_token_strs": True},
            {"messages": ASK, "add_generation_prompt": False, "return_token_strs": True},
        ),
        ({"prompt": "头痛", "add_special_tokens": False}, {"prompt": "头痛", "add_special_tokens": False}),
        (
            {"messages": [*ASK, {"role": "assistant", "content": "多休息。"}], "add_generation_prompt": False},
            {"messages": [*ASK, {"role": "assistant", "content": "多休息。"}], "add_generation_prompt": False},
        ),
    ],
)
def test_what_is_tokenized(client: TestClient, backend: FakeBackend, body: dict[str, Any], wanted: Any) -> None:
    assert client.post("/tokenize", json={"model": "ppo", **body}).status_code == 200
    assert backend.seen[-1][1].body == wanted


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            {"messages": ASK, "add_special_tokens": True},
            "add_special_tokens: the chat template adds the special tokens",
        ),
        ({"prompt": "头痛", "add_generation_prompt": True}, "add_generation_prompt: requires messages"),
        (
            {"messages": ASK, "add_generation_prompt": True, "continue_final_message": True},
            "continue_final_message: cannot be combined with add_generation_prompt=true",
        ),
        ({"messages": ASK, "chat_template": "{{ 1 }}"}, "chat_template: the checkpoint's chat template is always used"),
        (
            {"messages": ASK, "tools": [{"function": {"name": "lookup"}}]},
            "tools: the chat template of this model does not support",
        ),
        (
            {"messages": ASK, "chat_template_kwargs": {"a": 1}},
            "chat_template_kwargs.a: the chat template of this model",
        ),
    ],
)
def test_what_cannot_be_tokenized(client: TestClient, body: dict[str, Any], message: str) -> None:
    answer = client.post("/tokenize", json={"model": "ppo", **body})
    assert (answer.status_code, answer.json()["error"]["message"][: len(message)]) == (400, message)
