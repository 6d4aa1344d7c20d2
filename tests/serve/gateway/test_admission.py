"""Token limits under attack: simultaneous, abandoned and timed-out requests. The backend only counts."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any

import pytest
from serve_fakes import ASK, CHAT, MODEL, PROMPT_TOKENS, CountingBackend, Interface, key

LIMIT = 1000


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Any:
    """The lines of the request log, as they are at the time of the call."""
    caplog.set_level(logging.INFO, "ray.serve")
    return lambda: [
        record.ray_serve_extra_fields for record in caplog.records if hasattr(record, "ray_serve_extra_fields")
    ]


def chat(**more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": ASK, **more}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("max_tokens", [20, 150])
def test_simultaneous_requests_cannot_pass_the_token_limit(stream: bool, max_tokens: int) -> None:
    backend = CountingBackend(step_s=0.001)
    interface = Interface(backend, [key("a")], {"tokens_per_minute": LIMIT})

    async def attack() -> list[Any]:
        async with interface.http("a") as http:
            body = chat(max_tokens=max_tokens, stream=stream)
            return await asyncio.gather(*(http.post(CHAT, json=body) for _ in range(60)))

    responses = asyncio.run(attack())
    statuses = Counter(response.status_code for response in responses)
    used = statuses[200] * (max_tokens + PROMPT_TOKENS)
    assert set(statuses) == {200, 429}
    assert statuses[200] * max_tokens == backend.written
    assert LIMIT / 3 < used <= LIMIT + 60  # a second of refilling is 17
    for response in responses:
        if response.status_code == 429:
            assert 1 <= int(response.headers["retry-after"]) <= 60
            assert response.json()["error"]["code"] == "rate_limit_exceeded"


def test_what_was_reserved_and_not_used_is_given_back() -> None:
    interface = Interface(CountingBackend(), [key("a")], {"tokens_per_minute": LIMIT})

    async def one_after_another() -> list[int]:
        async with interface.http("a") as http:
            return [(await http.post(CHAT, json=chat(max_tokens=20))).status_code for _ in range(30)]

    assert asyncio.run(one_after_another()) == [200] * 30  # 30 tokens each, though 90 and more are reserved


@pytest.mark.parametrize(
    ("body", "most"),
    [
        ({"max_tokens": 1001}, 1002),
        ({"max_tokens": 300, "n": 4}, 1202),
        ({}, 512),
        ({"max_completion_tokens": 900}, 902),
    ],
)
def test_a_request_above_the_whole_limit_is_not_told_to_wait(body: dict[str, Any], most: int) -> None:
    interface = Interface(CountingBackend(), [key("a", tokens_per_minute=500)], context=2048 if body else 512)

    async def ask() -> Any:
        async with interface.http("a") as http:
            return await http.post(CHAT, json=chat(**body))

    response = asyncio.run(ask())
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, "request_exceeds_rate_limit")
    assert "this key may use 500 tokens per minute" in error["message"]
    assert "retry-after" not in response.headers


def test_a_refused_request_is_told_when_its_tokens_will_be_there() -> None:
    interface = Interface(CountingBackend(), [key("a", tokens_per_minute=600)])

    async def ask() -> tuple[Any, Any]:
        async with interface.http("a") as http:
            await http.post(CHAT, json=chat(max_tokens=490))  # uses 500 of 600
            refused = await http.post(CHAT, json=chat(max_tokens=150))
            return refused, await http.post(CHAT, json=chat(max_tokens=20))

    refused, small = asyncio.run(ask())
    # 150 for the response, 18 bytes of the question, 40 for the template, 100 are left, 10 come a second.
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "11")
    assert "this request needs up to 208, more than are left: try again in 11 s." in refused.json()["error"]["message"]
    assert small.status_code == 200


@pytest.mark.parametrize("after", [1, 7])
def test_an_abandoned_stream_is_charged_and_logged(after: int, logged: Any) -> None:
    backend = CountingBackend(step_s=0.01)
    interface = Interface(backend, [key("a", tokens_per_minute=LIMIT)])
    events = asyncio.run(interface.leave(CHAT, chat(max_tokens=400, stream=True), after, "a"))
    (line,) = logged()
    assert len(events) == after
    assert (line["status"], line["prompt_tokens"], line["key"]) == (499, PROMPT_TOKENS, "a")
    assert line["response_tokens"] in (after, after + 1)
    assert backend.at_engine == 0
    assert backend.written < 20
    taken = LIMIT - interface.gate.limits._buckets["a", "tokens"]._level
    assert taken == pytest.approx(PROMPT_TOKENS + line["response_tokens"], abs=3)


def test_an_abandoned_whole_response_is_charged_and_logged(logged: Any) -> None:
    interface = Interface(CountingBackend(step_s=0.01), [key("a", tokens_per_minute=LIMIT)])
    asyncio.run(interface.leave(CHAT, chat(max_tokens=400), 0, "a"))
    (line,) = logged()
    assert (line["status"], line["prompt_tokens"], line["estimated"]) == (499, PROMPT_TOKENS, False)
    assert 0 < line["response_tokens"] < 25


def test_a_cancellation_that_comes_together_with_a_reply_ends_the_request(logged: Any) -> None:
    backend = CountingBackend()  # there is always another reply
    interface = Interface(backend, [key("a")], context=10_000_000)

    async def run() -> None:
        for _ in range(20):
            await interface.leave(CHAT, chat(max_tokens=1_000_000), 0, "a", seconds=0.05)

    asyncio.run(run())
    assert [line["status"] for line in logged()] == [499] * 20
    assert backend.at_engine == 0


def test_what_is_abandoned_before_the_engine_counted_is_charged_by_its_length(logged: Any) -> None:
    interface = Interface(CountingBackend(step_s=5.0), [key("a", tokens_per_minute=LIMIT)])
    body = {**chat(max_tokens=400), "messages": [{"role": "user", "content": "头痛" * 40}]}
    asyncio.run(interface.leave(CHAT, body, 0, "a"))
    (line,) = logged()
    assert (line["status"], line["prompt_tokens"], line["response_tokens"], line["estimated"]) == (499, 10, 0, True)


@pytest.mark.parametrize("stream", [False, True])
def test_a_timed_out_response_is_charged_and_logged(stream: bool, logged: Any) -> None:
    backend = CountingBackend(step_s=0.02)
    interface = Interface(backend, [key("a", tokens_per_minute=LIMIT)], {"seconds": 0.3})

    async def ask() -> Any:
        async with interface.http("a") as http:
            return await http.post(CHAT, json=chat(max_tokens=400, stream=stream))

    response = asyncio.run(ask())
    (line,) = logged()
    assert response.status_code == (200 if stream else 504)
    assert "The response was not finished within 0.3 s." in response.text
    assert (line["status"], line["prompt_tokens"]) == (504, PROMPT_TOKENS)
    assert 3 <= line["response_tokens"] <= 15
    taken = LIMIT - interface.gate.limits._buckets["a", "tokens"]._level
    assert taken == pytest.approx(PROMPT_TOKENS + line["response_tokens"], abs=8)
    assert backend.at_engine == 0


def test_tokenizing_and_scoring_are_charged() -> None:
    backend = CountingBackend()
    interface = Interface(backend, [key("a")], {"tokens_per_minute": LIMIT})
    scored = [[*ASK, {"role": "assistant", "content": "多休息。"}]]

    async def ask() -> list[float]:
        levels = []
        async with interface.http("a") as http:
            for path, body in (
                ("/tokenize", {"model": MODEL, "prompt": "a" * 300}),
                ("/detokenize", {"model": MODEL, "tokens": [5] * 200}),
                ("/v1/score", {"conversations": scored}),
            ):
                assert (await http.post(path, json=body)).status_code == 200
                levels.append(LIMIT - interface.gate.limits._buckets["a", "tokens"]._level)
        return levels

    assert asyncio.run(ask()) == pytest.approx([300, 500, 507], abs=3)


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        (
            CHAT,
            {"messages": ASK, "n": 9},
            "9 responses to each of 1 prompts are 9 sequences, and the limit per request is 8",
        ),
        ("/v1/completions", {"prompt": ["头痛"] * 3, "n": 3}, "3 responses to each of 3 prompts are 9 sequences"),
        ("/v1/completions", {"prompt": [[5]] * 9}, "1 responses to each of 9 prompts are 9 sequences"),
        (
            "/tokenize",
            {"prompt": "x" * 16_385},
            "The prompt has 16,385 characters, and a prompt may have 16,384, 32 for",
        ),
        (CHAT, {"messages": [{"role": "user", "content": "x" * 16_385}]}, "The prompt has 16,385 characters"),
    ],
)
def test_the_size_of_one_request_is_bounded_before_an_engine_sees_it(
    path: str, body: dict[str, Any], message: str
) -> None:
    backend = CountingBackend()
    interface = Interface(backend, [key("a")], {"sequences": 8})

    async def ask() -> Any:
        async with interface.http("a") as http:
            return await http.post(path, json={"model": MODEL, **body})

    response = asyncio.run(ask())
    assert response.status_code == 400
    assert response.json()["error"]["message"].startswith(message)
    assert backend.asked == []


@pytest.mark.parametrize(
    ("keys", "limits", "salts"),
    [
        (["a", "b"], {}, ["a/", "a/s", "b/s"]),
        (["a", "b"], {"shared_prefixes": True}, [None, "s", "s"]),
        (["a"], {}, [None, "s"]),
    ],
)
def test_no_key_finds_anothers_prompts_in_the_cache(
    keys: list[str], limits: dict[str, Any], salts: list[str | None]
) -> None:
    backend = CountingBackend()
    interface = Interface(backend, [key(name) for name in keys], limits)

    async def ask() -> None:
        for name, more in (("a", {}), ("a", {"cache_salt": "s"}), ("b", {"cache_salt": "s"}))[: len(salts)]:
            async with interface.http(name) as http:
                assert (await http.post(CHAT, json=chat(**more))).status_code == 200

    asyncio.run(ask())
    assert [request.body.get("cache_salt") for request in backend.asked] == salts
