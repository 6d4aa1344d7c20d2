from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from actors import http_retry
from actors.rewards.config import HttpRewardConfig
from actors.rewards.http import RemoteReward
from actors.rewards.sample import RewardFunctionError, Sample
from configs.errors import ConfigError

MakeSamples = Callable[[int], list[Sample]]


@dataclass
class Reply:
    """What the endpoint answers a request with."""

    body: Any = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    after_s: float = 0.0
    a_byte_each_s: float = 0.0


@dataclass
class Endpoint:
    """A real HTTP server on this machine: `answer` decides, and what it was asked is kept."""

    url: str = ""
    answer: Callable[[int, dict[str, Any]], Reply] = lambda number, body: Reply(status=404)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    at_a_time: list[int] = field(default_factory=list)
    under_way: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reward_function(self, path: str = "/reward", **settings: Any) -> RemoteReward:
        return RemoteReward("remote", HttpRewardConfig(url=self.url + path, **settings))


def handler(endpoint: Endpoint) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with endpoint.lock:
                number = len(endpoint.bodies)
                endpoint.bodies.append(body)
                endpoint.headers.append(dict(self.headers))
                endpoint.under_way += 1
                endpoint.at_a_time.append(endpoint.under_way)
            reply = endpoint.answer(number, body)
            time.sleep(reply.after_s)
            with endpoint.lock:
                endpoint.under_way -= 1
            with suppress(BrokenPipeError, ConnectionResetError):  # whom this was for has given up
                self.send(reply)

        def send(self, reply: Reply) -> None:
            content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in {"Content-Length": str(len(content)), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            for place in range(len(content) if reply.a_byte_each_s else 0):
                self.wfile.write(content[place : place + 1])
                time.sleep(reply.a_byte_each_s)
            if not reply.a_byte_each_s:
                self.wfile.write(content)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    return Handler


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(http_retry, "FIRST_WAIT_S", 0.01)
    endpoint = Endpoint()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(endpoint))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    endpoint.url = f"http://127.0.0.1:{server.server_port}"
    yield endpoint
    server.shutdown()
    thread.join()
    server.server_close()


def number_of(sample: dict[str, Any]) -> int:
    """Which of `make_samples` it is."""
    return int(sample["row"]["reference"].removeprefix("答案"))


def rewards_of(body: dict[str, Any]) -> dict[str, list[float]]:
    return {"rewards": [number_of(sample) / 2 for sample in body["samples"]]}


def failure_of(reward_function: RemoteReward, samples: list[Sample]) -> RewardFunctionError:
    with pytest.raises(RewardFunctionError) as failure:
        reward_function.score(samples)
    assert "\n" not in str(failure.value)
    return failure.value


def test_samples_arrive_whole_and_rewards_come_back(endpoint: Endpoint, make_samples: MakeSamples) -> None:
    endpoint.answer = lambda number, body: Reply(rewards_of(body))
    samples = make_samples(3)
    reward_function = endpoint.reward_function()
    assert reward_function.score(samples) == [0.0, 0.5, 1.0]
    assert reward_function.name == "remote"
    assert endpoint.bodies == [{"samples": samples}]
    assert endpoint.headers[0]["Content-Type"] == "application/json"
    assert "Authorization" not in endpoint.headers[0]
    assert reward_function.score([]) == []
    assert len(endpoint.bodies) == 1


def test_batches_run_at_the_same_time_and_keep_their_order(endpoint: Endpoint, make_samples: MakeSamples) -> None:
    def later_batches_first(number: int, body: dict[str, Any]) -> Reply:
        first = number_of(body["samples"][0])
        return Reply(rewards_of(body), after_s=0.3 - 0.02 * first)

    endpoint.answer = later_batches_first
    assert endpoint.reward_function(batch_size=2, concurrent=3).score(make_samples(13)) == [i / 2 for i in range(13)]
    assert sorted(len(body["samples"]) for body in endpoint.bodies) == [1, 2, 2, 2, 2, 2, 2]
    assert max(endpoint.at_a_time) == 3


@pytest.mark.parametrize("status", [429, 500, 503])
def test_retry_then_success(endpoint: Endpoint, make_samples: MakeSamples, status: int, caplog: Any) -> None:
    endpoint.answer = lambda number, body: Reply(b"busy", status) if number < 2 else Reply(rewards_of(body))
    assert endpoint.reward_function(retries=2).score(make_samples(2)) == [0.0, 0.5]
    assert endpoint.bodies == [{"samples": make_samples(2)}] * 3
    assert [record.message for record in caplog.records if record.name == "actors.rewards.http"] == [
        f"reward 'remote': {endpoint.url}/reward, batch 1 of 1: status {status}: 'busy'; trying again in {wait} s"
        for wait in ("0.0", "0.0")
    ]


def test_500_forever(endpoint: Endpoint, make_samples: MakeSamples) -> None:
    endpoint.answer = lambda number, body: Reply(b"out of\nmemory" + b"!" * 500, 500)
    error = failure_of(endpoint.reward_function("/reward?token=secret", retries=3), make_samples(2))
    body = "'out of\\nmemory" + "!" * 187 + "'..."
    assert str(error) == f"reward 'remote': {endpoint.url}/reward, batch 1 of 1, try 4: status 500: {body}"
    assert len(endpoint.bodies) == 4


def test_waits_double(endpoint: Endpoint, make_samples: MakeSamples, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_retry, "FIRST_WAIT_S", 0.1)
    monkeypatch.setattr(http_retry, "LONGEST_WAIT_S", 0.3)
    endpoint.answer = lambda number, body: Reply(status=502)
    began = time.monotonic()
    failure_of(endpoint.reward_function(retries=3), make_samples(1))
    assert 0.1 + 0.2 + 0.3 <= time.monotonic() - began < 5


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_respected(endpoint: Endpoint, make_samples: MakeSamples, as_date: bool) -> None:
    def once_busy(number: int, body: dict[str, Any]) -> Reply:
        after = formatdate(time.time() + 2, usegmt=True) if as_date else "1"
        return Reply(rewards_of(body)) if number else Reply(status=429, headers={"Retry-After": after})

    endpoint.answer = once_busy
    began = time.monotonic()
    assert endpoint.reward_function().score(make_samples(1)) == [0.0]
    assert 0.9 <= time.monotonic() - began < 10  # a date has no fractions of a second


@pytest.mark.parametrize("after", ["3600", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_retry_after_has_a_bound(
    endpoint: Endpoint, make_samples: MakeSamples, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    monkeypatch.setattr(http_retry, "LONGEST_WAIT_S", 0.1)
    endpoint.answer = lambda number, body: Reply(status=503, headers={"Retry-After": after})
    assert "status 503" in str(failure_of(endpoint.reward_function(retries=1), make_samples(1)))
    assert len(endpoint.bodies) == 2


@pytest.mark.parametrize("after", ["soon", "-1", "nan", "Fri, 31 Foo 2020"])
def test_retry_after_without_sense_is_as_none(endpoint: Endpoint, make_samples: MakeSamples, after: str) -> None:
    endpoint.answer = lambda number, body: (
        Reply(rewards_of(body)) if number else Reply(status=503, headers={"Retry-After": after})
    )
    assert endpoint.reward_function().score(make_samples(1)) == [0.0]


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_4xx_is_final(endpoint: Endpoint, make_samples: MakeSamples, status: int) -> None:
    endpoint.answer = lambda number, body: Reply({"error": "no such field"}, status)
    error = failure_of(endpoint.reward_function(), make_samples(2))
    expected = f'/reward, batch 1 of 1, try 1: status {status}: \'{{"error": "no such field"}}\''
    assert str(error) == f"reward 'remote': {endpoint.url}{expected}"
    assert len(endpoint.bodies) == 1


def test_the_batch_that_failed_is_named_and_ends_the_others(endpoint: Endpoint, make_samples: MakeSamples) -> None:
    def second_is_refused(number: int, body: dict[str, Any]) -> Reply:
        refused = number_of(body["samples"][0]) == 2
        return Reply(b"no", 400) if refused else Reply(rewards_of(body), after_s=2)

    endpoint.answer = second_is_refused
    began = time.monotonic()
    error = failure_of(endpoint.reward_function(batch_size=2, concurrent=2), make_samples(8))
    assert ", batch 2 of 4, try 1: status 400: 'no'" in str(error)
    assert time.monotonic() - began < 1.5
    assert len(endpoint.bodies) <= 3


def test_redirection_says_where_to(endpoint: Endpoint, make_samples: MakeSamples) -> None:
    endpoint.answer = lambda number, body: Reply(status=307, headers={"Location": "http://elsewhere/reward"})
    error = failure_of(endpoint.reward_function(), make_samples(1))
    assert "status 307, to http://elsewhere/reward, which the url must name itself: ''" in str(error)
    assert len(endpoint.bodies) == 1


@pytest.mark.parametrize("slow", [{"after_s": 0.5}, {"a_byte_each_s": 0.05}])
def test_timeout_is_of_the_whole_answer(endpoint: Endpoint, make_samples: MakeSamples, slow: dict[str, float]) -> None:
    endpoint.answer = lambda number, body: Reply(rewards_of(body), **slow)
    began = time.monotonic()
    error = failure_of(endpoint.reward_function(timeout_s=0.2, retries=1), make_samples(2))
    assert str(error).endswith("/reward, batch 1 of 1, try 2: no response within timeout_s 0.2")
    assert isinstance(error.__cause__, TimeoutError)
    assert 0.4 <= time.monotonic() - began < 5
    assert len(endpoint.bodies) == 2


def test_timeout_then_success(endpoint: Endpoint, make_samples: MakeSamples) -> None:
    endpoint.answer = lambda number, body: Reply(rewards_of(body), after_s=0 if number else 1.5)
    assert endpoint.reward_function(timeout_s=0.5, retries=1).score(make_samples(2)) == [0.0, 0.5]


def test_nobody_listens(make_samples: MakeSamples, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(http_retry, "FIRST_WAIT_S", 0.01)
    reward_function = RemoteReward("remote", HttpRewardConfig(url="http://127.0.0.1:1/", retries=1))
    error = failure_of(reward_function, make_samples(1))
    assert "http://127.0.0.1:1/, batch 1 of 1, try 2: no response: ConnectError: " in str(error)
    assert type(error.__cause__).__name__ == "ConnectError"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"rewards": [1.0]}, "returned 1 rewards for 2 samples, of which the first without one is prompt 0 sample 1 "),
        ({"rewards": [1.0] * 3}, "returned 3 rewards for 2 samples, of which the last is prompt 0 sample 1 "),
        (
            {"rewards": [0, float("nan")]},
            "returned nan for prompt 0 sample 1 (prompt '病人0头痛怎么办？', response '第1",
        ),
        ({"rewards": [float("inf"), 0]}, "returned inf for prompt 0 sample 0 "),
        ({"rewards": [0, None]}, "returned None for prompt 0 sample 1 "),
        ({"rewards": ["1", 0]}, "returned '1' for prompt 0 sample 0 "),
        ({"rewards": 1.0}, "returned 1.0 for 2 samples"),
        ({"scores": [1, 2]}, 'the response is not {"rewards": [...]}: \'{"scores": [1, 2]}\''),
        ([1.0, 2.0], "the response is not {\"rewards\": [...]}: '[1.0, 2.0]'"),
        (b"null", "the response is not {\"rewards\": [...]}: 'null'"),
        (b'{"rewards": [1.0,', "the response is not JSON: '{\"rewards\": [1.0,'"),
        (b"<html>", "the response is not JSON: '<html>'"),
        (b"", "the response is not JSON: ''"),
        (b"\xff\xfe", "the response is not JSON: "),
        (b"[" * 100_000, "the response is not JSON: '[[["),
    ],
)
def test_wrong_answers(endpoint: Endpoint, make_samples: MakeSamples, body: Any, message: str) -> None:
    endpoint.answer = lambda number, _: Reply(body)
    text = str(failure_of(endpoint.reward_function(), make_samples(2)))
    assert text.startswith(f"reward 'remote': {endpoint.url}/reward, batch 1 of 1: status 200: {message}")
    assert len(endpoint.bodies) == 1  # asking again would not make it right


def test_bearer_key_is_sent_and_never_shown(
    endpoint: Endpoint, make_samples: MakeSamples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", "a-very-secret-key\n")
    endpoint.answer = lambda number, body: Reply(b"unknown key a-very-secret-key", 401)
    reward_function = endpoint.reward_function(api_key_variable="JUDGE_KEY")
    error = failure_of(reward_function, make_samples(1))
    assert endpoint.headers[0]["Authorization"] == "Bearer a-very-secret-key"
    assert str(error).endswith("status 401: 'unknown key KEY'")


@pytest.mark.parametrize(("value", "message"), [(None, "is not set"), (" ", "is not set"), ("密钥", "printable ASCII")])
def test_key_that_cannot_be_sent(monkeypatch: pytest.MonkeyPatch, value: str | None, message: str) -> None:
    if value is None:
        monkeypatch.delenv("JUDGE_KEY", raising=False)
    else:
        monkeypatch.setenv("JUDGE_KEY", value)
    with pytest.raises(ConfigError, match=f"^reward 'remote': api_key_variable: .*JUDGE_KEY.*{message}"):
        RemoteReward("remote", HttpRewardConfig(url="http://127.0.0.1:1/", api_key_variable="JUDGE_KEY"))


@pytest.mark.parametrize(("column", "value"), [("when", b"\x00"), ("age", float("nan")), ("note", "\ud800")])
def test_row_that_json_cannot_have(endpoint: Endpoint, make_samples: MakeSamples, column: str, value: object) -> None:
    samples = make_samples(3)
    samples[1]["row"][column] = value
    error = failure_of(endpoint.reward_function(batch_size=2), samples)
    assert f"/reward, batch 1 of 2: '{column}' of prompt 0 sample 1 (prompt " in str(error)
    assert "cannot be sent as JSON" in str(error)
    assert endpoint.bodies == []


def test_a_response_that_is_too_large_is_not_read_to_its_end(endpoint: Endpoint, make_samples: MakeSamples) -> None:
    endpoint.answer = lambda number, body: Reply(b"[" + b"1, " * 2**20 + b"1]")
    with pytest.raises(RewardFunctionError, match=r"try 1: the response is larger than max_response_bytes 65536$"):
        endpoint.reward_function(max_response_bytes=2**16).score(make_samples(2))
    assert len(endpoint.bodies) == 1  # it is not asked again


def test_a_compressed_response_is_refused_before_it_grows(endpoint: Endpoint, make_samples: MakeSamples) -> None:
    bomb = gzip.compress(b"0" * 2**24)  # 16 KB that become 16 MB
    endpoint.answer = lambda number, body: Reply(bomb, headers={"Content-Encoding": "gzip"})
    with pytest.raises(RewardFunctionError, match=r"the response is compressed, which the request did not accept$"):
        endpoint.reward_function().score(make_samples(2))
    assert endpoint.headers[0]["Accept-Encoding"] == "identity"
