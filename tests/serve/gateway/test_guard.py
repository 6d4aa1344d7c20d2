"""Strangers and attackers at the HTTP interface: what they are told, and what their requests cost."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from serve_fakes import ASK, CHAT, MODEL, CountingBackend, Interface, key, text_of

BODY = {"model": MODEL, "messages": ASK, "max_tokens": 4}


def open_to_this_machine(**limits: Any) -> Interface:
    return Interface(CountingBackend(), limits=limits)


def with_a_key(**limits: Any) -> Interface:
    return Interface(CountingBackend(), [key("ward")], limits, client=("203.0.113.5", 1234))


def ask(interface: Interface, method: str, path: str, key_name: str = "", **request: Any) -> Any:
    async def send() -> Any:
        async with interface.http(key_name) as http:
            return await http.request(method, path, **request)

    return asyncio.run(send())


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8000", "LOCALHOST.", "127.0.0.1", "127.0.0.1:8000", "127.9.9.9", "[::1]", "[::1]:8000"],
)
def test_without_keys_this_machine_is_answered_by_its_names(host: str) -> None:
    assert ask(open_to_this_machine(), "POST", CHAT, json=BODY, headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1", "0.0.0.0",
     "localhost:80@evil.example", "[::1].evil.example", "", "localhost, evil.example", "127.1", "2130706433"],
)  # fmt: skip
@pytest.mark.parametrize("path", [CHAT, "/v1/models", "/openapi.json", "/", "/page/page.js", "/nowhere"])
def test_without_keys_a_page_of_another_host_gets_nothing(host: str, path: str) -> None:
    response = ask(open_to_this_machine(), "POST" if path == CHAT else "GET", path, json=BODY, headers={"host": host})
    assert response.status_code == 403
    assert "the Host header must be localhost or a loopback address" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Forwarded-For", "127.0.0.1"),
        ("X-Forwarded-For", ""),
        ("x-forwarded-proto", "https"),
        ("X-Forwarded-Host", "localhost"),
        ("Forwarded", "for=127.0.0.1"),
        ("X-Real-IP", "127.0.0.1"),
        ("Via", "1.1 proxy"),
        ("CF-Connecting-IP", "127.0.0.1"),
        ("True-Client-IP", "127.0.0.1"),
    ],
)
def test_without_keys_a_request_through_a_proxy_is_refused(name: str, value: str) -> None:
    response = ask(open_to_this_machine(), "POST", CHAT, json=BODY, headers={name: value})
    assert response.status_code == 403
    assert "does not accept requests through a proxy" in response.json()["error"]["message"]


def test_without_keys_http_1_0_and_other_machines_are_refused() -> None:
    interface = open_to_this_machine()
    scopes: list[dict[str, Any]] = [
        {"http_version": "1.0"},
        {"client": ("10.0.0.1", 5)},
        {"client": None},
        {"headers": []},
        {"headers": [(b"host", b"localhost"), (b"host", b"evil.example")]},
    ]
    for changed in scopes:
        assert _status(interface, changed) == 403, changed
    assert _status(interface, {}) == 200


def _status(interface: Interface, changed: dict[str, Any]) -> int:
    """The status of GET /v1/models in a request that differs so from a good one."""
    statuses = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": "/v1/models", "raw_path": b"/v1/models", "query_string": b"", "root_path": "",
        "headers": [(b"host", b"localhost")], "client": ("127.0.0.1", 5), "server": ("127.0.0.1", 8000), **changed,
    }  # fmt: skip
    asyncio.run(interface.app(scope, receive, send))
    return statuses[0]


def test_with_keys_any_host_and_proxy_may_pass_requests_on() -> None:
    headers = {"host": "ai.hospital.example", "x-forwarded-for": "10.0.0.1", "via": "1.1 proxy"}
    assert ask(with_a_key(), "POST", CHAT, "ward", json=BODY, headers=headers).status_code == 200


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/score", "/tokenize", "/detokenize", "/nowhere"])
@pytest.mark.parametrize("content", [b"{", b"[" * 100_000, b"{}", b'"' + b"x" * 2**21])
def test_no_body_is_read_or_parsed_before_the_key_is_known(path: str, content: bytes) -> None:
    interface = with_a_key()
    read = 0

    async def body() -> Any:
        nonlocal read
        for start in range(0, len(content), 1000):
            read += 1
            yield content[start : start + 1000]

    response = ask(interface, "POST", path, content=body(), headers={"content-type": "application/json"})
    assert (response.status_code, response.json()["error"]["code"]) == (401, "missing_api_key")
    assert response.headers["connection"] == "close"
    assert read == 0
    wrong = ask(interface, "POST", path, content=content, headers={"authorization": f"Bearer {text_of('nurse')}"})
    assert wrong.json()["error"]["code"] == "invalid_api_key"


def test_every_route_needs_a_key_but_probes_page_and_schema() -> None:
    interface = with_a_key()
    told = {path: ask(interface, "GET", path).status_code for path in interface.app.openapi()["paths"]}
    public = {"/live", "/health", "/ready"}
    assert {path for path, status in told.items() if status == 200} == public
    assert {status for path, status in told.items() if path not in public} == {401}
    for path in ("/", "/page/page.js", "/openapi.json"):
        assert ask(interface, "GET", path).status_code == 200


def test_requests_per_minute_count_before_the_body() -> None:
    interface = Interface(CountingBackend(), [key("ward", requests_per_minute=1)])
    assert ask(interface, "POST", CHAT, "ward", content=b"{").status_code == 400
    refused = ask(interface, "POST", CHAT, "ward", content=b"{")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "60")


@pytest.mark.parametrize(
    ("headers", "what"),
    [
        ([(f"x-{index}", "1") for index in range(70)], "75 headers with 444 bytes"),
        ([("x-long", "x" * 20_000)], "the limits are 64 and 16,384"),
        ([("cookie", "x" * 9_000), ("authorization", "Bearer " + "x" * 9_000)], "the limits are 64 and 16,384"),
    ],
)
def test_headers_are_bounded(headers: list[tuple[str, str]], what: str) -> None:
    response = ask(with_a_key(), "GET", "/v1/models", headers=headers)
    assert response.status_code == 431
    assert what in response.json()["error"]["message"]


@pytest.mark.parametrize("given", ["x" * 65, "a b", "頭".encode(), 'a"}', "", "a\tb", "../a"])
def test_request_ids_are_bounded(given: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ray.serve")
    response = ask(with_a_key(), "POST", CHAT, "ward", json=BODY, headers={"x-request-id": given})
    assert (response.status_code, response.json()["error"]["message"]) == (
        400,
        "X-Request-ID: must be 1 to 64 letters, digits, '.', '_', ':' and '-'.",
    )
    (line,) = [record.ray_serve_extra_fields for record in caplog.records if hasattr(record, "ray_serve_extra_fields")]
    assert (len(line["request"]), line["client"]) == (32, "203.0.113.5")


def test_a_good_request_id_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ray.serve")
    interface = with_a_key()
    ask(interface, "POST", CHAT, "ward", json=BODY, headers={"x-request-id": "ward-3.2027:17_a"})
    assert interface.backend.asked[0].request_id == "ward-3.2027:17_a"
    (line,) = [record.ray_serve_extra_fields for record in caplog.records if hasattr(record, "ray_serve_extra_fields")]
    assert (line["request"], line["key"]) == ("ward-3.2027:17_a", "ward")


def test_a_body_that_says_it_is_too_large_is_not_read() -> None:
    interface = with_a_key(body_bytes=2048)
    read = 0

    async def body() -> Any:
        nonlocal read
        read += 1
        yield b"x" * 3000

    for length in ("3000", "9" * 5000, "-1", "x"):
        response = ask(interface, "POST", CHAT, "ward", content=body(), headers={"content-length": length})
        assert response.status_code == 413
    assert read == 0


def test_a_slow_body_does_not_keep_the_key_s_other_requests_waiting() -> None:
    interface = Interface(CountingBackend(), [key("ward"), key("other")])

    async def slowly() -> Any:
        yield b"{"
        await asyncio.sleep(2.0)

    async def run() -> tuple[int, float]:
        async with interface.http("ward") as ward:
            slow = asyncio.create_task(ward.post(CHAT, content=slowly()))
            await asyncio.sleep(0.1)
            begun = asyncio.get_running_loop().time()
            status = (await ward.post(CHAT, json=BODY)).status_code
            seconds = asyncio.get_running_loop().time() - begun
            slow.cancel()
            return status, seconds

    status, seconds = asyncio.run(run())
    assert status == 200
    assert seconds < 1.0


def test_a_body_that_trickles_in_is_given_up() -> None:
    interface = with_a_key(body_seconds=0.2)

    async def slowly() -> Any:
        for _ in range(100):
            yield b" "
            await asyncio.sleep(0.05)

    response = ask(interface, "POST", CHAT, "ward", content=slowly())
    assert (response.status_code, response.headers["connection"]) == (408, "close")
    assert response.json()["error"]["message"] == "The body did not arrive within the limit of 0.2 s."


def test_strangers_learn_only_whether_the_endpoint_is_ready_and_cost_no_engine_slot() -> None:
    interface = with_a_key()

    async def storm() -> list[Any]:
        async with interface.http() as http:
            return await asyncio.gather(*(http.get("/ready") for _ in range(200)))

    assert {response.text for response in asyncio.run(storm())} == {'{"status":"ready"}'}
    assert interface.backend.polls == 1
    assert ask(interface, "GET", "/ready", "ward").json()["engines"][MODEL]["weights"] == "/models/b"
    wrong = ask(interface, "GET", "/ready", headers={"authorization": "Bearer wrong"})
    assert wrong.json() == {"status": "ready"}


@pytest.mark.parametrize("path", ["/v1/models/", "/v1/chat/completions/", "/ready/", "/page", "//evil.example/.."])
def test_nothing_redirects_to_a_host_that_the_client_names(path: str) -> None:
    response = ask(with_a_key(), "GET", path, "ward", headers={"host": "evil.example"})
    assert "location" not in response.headers
    assert response.status_code in (200, 404, 405)


def test_keys_are_exchanged_while_requests_run() -> None:
    interface = Interface(CountingBackend(step_s=0.01), [key("old")])

    async def run() -> tuple[int, int, int]:
        async with interface.http("old") as old, interface.http("new") as new:
            running = asyncio.create_task(old.post(CHAT, json={**BODY, "max_tokens": 30}))
            await asyncio.sleep(0.1)
            interface.gate.keyring.replace([key("new")])
            refused, accepted = await old.post(CHAT, json=BODY), await new.post(CHAT, json=BODY)
            return (await running).status_code, refused.status_code, accepted.status_code

    assert asyncio.run(run()) == (200, 401, 200)
