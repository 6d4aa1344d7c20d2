"""The whole endpoint, started once for all tests that ask it something."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

KEY = "a-key-for-this-test"
# ChiMed-GPT's format without its checks, and with tools.
TEMPLATE = (
    "{%- for tool in tools or [] -%}{{- tool.function.name + '<tool_call>' -}}{%- endfor -%}"
    "{%- for message in messages -%}"
    "{%- if message.role == 'system' -%}{{- message.content + '\\n' -}}"
    "{%- elif message.role in ('user', 'tool') -%}{{- '[human]:' + message.content + '\\n[bot]:' -}}"
    "{%- else -%}{{- message.content or '' -}}"
    "{%- for call in message.tool_calls -%}{{- call.function.name + (call.function.arguments | tojson) -}}{%- endfor -%}"
    "{{- eos_token -}}{%- endif -%}"
    "{%- endfor -%}"
)
ATTACKER, WARD, LIMITED = (f"{name}-key-for-this-test" for name in ("attacker", "ward", "limited"))
KEYS = f"""keys:
  test: {{key: {KEY}}}
  attacker: {{key: {ATTACKER}}}
  ward: {{key: {WARD}}}
  limited: {{key: {LIMITED}, tokens_per_minute: 1000}}
"""
START_S = 300.0  # half a minute on two quiet cores
CONTEXT = 1024


@dataclass(frozen=True)
class Endpoint:
    """Where the endpoint is, how it was started, and ways to ask it."""

    url: str
    arguments: dict[str, Any]
    other_weights: Path

    @property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=KEY, max_retries=0, timeout=60)

    def post(self, path: str, body: Any, key: str = KEY) -> httpx.Response:
        return httpx.post(self.url + path, json=body, headers={"Authorization": f"Bearer {key}"}, timeout=60)

    def engine(self) -> dict[str, Any]:
        """The state of one of the engines, whichever answers."""
        headers = {"Authorization": f"Bearer {KEY}"}
        state: dict[str, Any] = httpx.get(f"{self.url}/ready", headers=headers, timeout=10).json()["engines"]["tiny"]
        return state

    def replica_pids(self, deployment: str = "") -> set[int]:
        """Processes of the replicas whose deployment's name begins so; of all, by default."""
        from ray._private.state import actors  # unlike the public list, it needs no dashboard

        alive = [row for row in actors().values() if row["State"] == "ALIVE"]
        return {row["Pid"] for row in alive if row["Name"].startswith(f"SERVE_REPLICA::endpoint#{deployment}")}

    def wait(self, done: Callable[[], bool], what: str, seconds: float = START_S) -> None:
        """Until `done`, asked twice a second."""
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
            time.sleep(0.5)

    def build(self, **changes: Any) -> Any:
        """The application, with other arguments; of one version, so that running engines take over new weights."""
        from serve.app import application
        from serve.config import read_arguments

        return application(read_arguments({**self.arguments, **changes}), version="1")


ENDPOINT = pytest.StashKey[Endpoint | None]()


@pytest.fixture
def endpoint(
    request: pytest.FixtureRequest,
    ray_cluster: None,
    make_model: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Endpoint:
    """Two engines with a tiny model of random weights, and a reward model, started by the first test that asks."""
    stash = request.session.stash
    if ENDPOINT not in stash:
        stash[ENDPOINT] = None  # so that the other tests fail at once if it does not start
        stash[ENDPOINT] = _start(make_model, tmp_path_factory.mktemp("keys") / "keys.yaml")
    started = stash[ENDPOINT]
    assert started is not None, "the endpoint did not start: see the first test that needed it"
    return started


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Stops the endpoint after the last test in this folder, because it takes memory and CPU time while idle."""
    leaves = nextitem is None or Path(__file__).parent not in nextitem.path.parents
    if leaves and ENDPOINT in item.session.stash:
        from ray import serve

        serve.shutdown()
        del item.session.stash[ENDPOINT]


def _start(make_model: Callable[..., Path], keys: Path) -> Endpoint:
    from ray import serve
    from transformers import AutoTokenizer

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    keys.write_text(KEYS)
    model = make_model("tools", max_position_embeddings=CONTEXT)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(model)
    arguments = {
        "api_keys_file": str(keys),
        "model": f"tiny={model}",
        "reward_model": f"judge={make_model('judge', seed=3, reward=True)}",
        "engine": {"max_model_len": CONTEXT, "kv_cache_bytes": 2**26, "max_concurrent": 8},
        "replicas": {"count": 2, "threads": 1, "cpus": 0.5},
    }
    endpoint = Endpoint(
        f"http://127.0.0.1:{port}", arguments, make_model("other", seed=1, max_position_embeddings=CONTEXT)
    )
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(endpoint.build(), name="endpoint")
    endpoint.wait(lambda: httpx.get(f"{endpoint.url}/ready", timeout=10).status_code == 200, "the endpoint to be ready")
    return endpoint
