"""Against a server of the standard library that answers as told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from actors import http_retry
from configs.errors import ConfigError, RunError
from evals.models.endpoint import EndpointRespondent
from evals.result_cache import ResultCache

CHATS = [[{"role": "user", "content": f"第{n}题"}] for n in range(40)]


class Server(ThreadingHTTPServer):
    """`reply` gives a status and a body for every request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.models = ["诊所"]
        self.asked: list[dict[str, Any]] = []
        self.reply: Callable[[dict[str, Any]], tuple[int, Any]] = lambda body: (
            200,
            said(body["messages"][-1]["content"]),
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self._send(200, {"data": [{"id": name} for name in self.server.models]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        self._send(*self.server.reply(body))

    def _send(self, status: int, value: Any) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


def said(text: str, **more: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"content": text}, "finish_reason": "stop", **more}]}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(http_retry, "FIRST_WAIT_S", 0.01)
    with Server() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def result_cache(tmp_path: Path) -> ResultCache:
    return ResultCache(tmp_path / "ledger.jsonl")


def test_answers_come_in_order_and_greedily(server: Server, result_cache: ResultCache) -> None:
    replies = EndpointRespondent(server.url, None, result_cache).answer(CHATS, 7, "x")
    assert [reply.text for reply in replies] == [chat[0]["content"] for chat in CHATS]
    assert {(body["model"], body["temperature"], body["max_tokens"]) for body in server.asked} == {("诊所", 0.0, 7)}


def test_options_are_weighed_by_the_first_tokens_that_are_told(server: Server, result_cache: ResultCache) -> None:
    top = [{"token": " B", "logprob": -0.1}, {"token": "A", "logprob": -2.0}, {"token": "好", "logprob": -3.0}]
    server.reply = lambda body: (200, said("B", logprobs={"content": [{"token": "B", "top_logprobs": top}]}))
    model = EndpointRespondent(server.url, None, result_cache)
    assert model.option_logprobs(CHATS[:1], [["A", "B", "C"]], "x") == [[-2.0, -0.1, -3.0]]
    assert model.option_logprobs(CHATS[:1], [["X", "Y"]], "x") == [[]]


def test_an_endpoint_without_log_probabilities_says_what_to_do(server: Server, result_cache: ResultCache) -> None:
    with pytest.raises(ConfigError, match="returns no log-probabilities; evaluate with --methods generation"):
        EndpointRespondent(server.url, None, result_cache).option_logprobs(CHATS[:1], [["A", "B"]], "x")


def test_what_it_refuses_is_an_answer_of_its_own(server: Server, result_cache: ResultCache) -> None:
    server.reply = lambda body: (400, {"error": "too long"})
    (reply,) = EndpointRespondent(server.url, None, result_cache).answer(CHATS[:1], 7, "x")
    assert reply.text == ""
    assert reply.problem.startswith("the endpoint rejected the request (400)")


def test_a_moment_of_trouble_passes(server: Server, result_cache: ResultCache) -> None:
    troubles = iter([503, 429])
    usual = server.reply

    def reply(body: dict[str, Any]) -> tuple[int, Any]:
        status = next(troubles, None)
        return (status, "busy") if status else usual(body)

    server.reply = reply
    assert EndpointRespondent(server.url, None, result_cache).answer(CHATS[:1], 7, "x")[0].text == "第0题"
    assert len(server.asked) == 3


def test_a_failure_that_a_retry_cannot_change_is_final(server: Server, result_cache: ResultCache) -> None:
    server.reply = lambda body: (401, "no key")
    model = EndpointRespondent(server.url, None, result_cache)
    with pytest.raises(RunError, match=rf"qa: {server.url}: no response after 1 attempts \(status 401: \"no key\"\)"):
        model.answer(CHATS[:1], 7, "qa")
    server.reply = lambda body: (504, "late")
    with pytest.raises(RunError, match=rf"qa: {server.url}: no response after 4 attempts \(status 504: \"late\"\)"):
        model.answer(CHATS[:1], 7, "qa")
    assert len(server.asked) == 5


def test_one_that_dies_in_the_middle_is_named_and_what_it_said_is_kept(
    server: Server, result_cache: ResultCache
) -> None:
    usual = server.reply
    server.reply = lambda body: (500, "dead") if body["messages"][0]["content"] == "第35题" else usual(body)
    with pytest.raises(RunError, match=r"qa: .*status 500.*; 32 of 40 responses are saved: run the same command"):
        EndpointRespondent(server.url, None, result_cache).answer(CHATS, 7, "qa")
    server.asked.clear()
    server.reply = usual
    again = ResultCache(result_cache.path)
    replies = EndpointRespondent(server.url, None, again).answer(CHATS, 7, "qa")
    assert [reply.text for reply in replies] == [chat[0]["content"] for chat in CHATS]
    assert len(server.asked) == 8
    assert again.recalled == 32


def test_the_model_is_chosen_or_refused(server: Server, result_cache: ResultCache) -> None:
    server.models = ["a", "b"]
    assert EndpointRespondent(server.url, "b", result_cache).name == "b"
    with pytest.raises(ConfigError, match="there are several models; choose with --endpoint-model from a, b"):
        EndpointRespondent(server.url, None, result_cache)
    with pytest.raises(ConfigError, match="there is no model 'c'"):
        EndpointRespondent(server.url, "c", result_cache)


def test_nobody_there(result_cache: ResultCache) -> None:
    with pytest.raises(ConfigError, match=r"--endpoint http://127.0.0.1:9/v1: .*give the URL up to /v1"):
        EndpointRespondent("http://127.0.0.1:9/v1", None, result_cache)
