"""What every client's script starts with: nothing but 127.0.0.1 is contacted, and each probe ends as "yes" or a refusal's words."""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

HERE = ("127.0.0.1", "localhost", "::1", None, "")
ASK = [{"role": "user", "content": "头痛怎么办？"}]
WORDS = ASK[0]["content"]
FORM: dict[str, Any] = {
    "type": "object",
    "title": "triage",
    "description": "Where a patient goes.",
    "properties": {"department": {"type": "string", "enum": ["内科", "外科"]}, "urgent": {"type": "boolean"}},
    "required": ["department", "urgent"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "lookup", "description": "Look up.", "parameters": FORM}}


@dataclass(frozen=True)
class Endpoint:
    """The arguments of a client's script: `URL KEY MODEL FOLDER`, the folder being the model's."""

    url: str
    key: str
    model: str
    folder: str

    @property
    def v1(self) -> str:
        return f"{self.url}/v1"

    def post(self, path: str, body: Any) -> Any:
        """The reply to a request that no client is between."""
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)

    def bias(self, texts: Iterable[str], bias: int) -> dict[str, int]:
        """A `logit_bias` of the tokens of `texts`."""
        return {str(one): bias for text in texts for one in self.post("/tokenize", {"prompt": text})["tokens"]}

    @property
    def short_calls(self) -> dict[str, int]:
        """A `logit_bias` for calls of tools: a model of random weights writes blanks and further calls on and on."""
        return {**self.bias("\n\r\t ", -100), **self.bias(["</s>"], 100)}


def local_only() -> None:
    """End the process at the first attempt to reach anything but this machine."""

    def check(event: str, arguments: tuple[Any, ...]) -> None:
        host: Any = None
        if event == "socket.getaddrinfo":
            host = arguments[0]
        elif event == "socket.connect" and isinstance(arguments[1], tuple):
            host = arguments[1][0]
        if isinstance(host, bytes):
            host = host.decode()
        if host not in HERE:
            print(f"an attempt to reach {host}", file=sys.stderr)
            os._exit(3)

    sys.addaudithook(check)


def run(client: str, probes: Mapping[str, Callable[[Endpoint], None]]) -> None:
    """Run the probes of a client, and print one JSON object with their results.

    A failed assertion is no refusal: it ends the script.
    """
    local_only()
    endpoint = Endpoint(*sys.argv[1:])
    results = {}
    for name, probe in probes.items():
        try:
            probe(endpoint)
        except AssertionError:
            raise
        except Exception as error:  # noqa: BLE001 - each client has its own classes of errors
            results[name] = f"{type(error).__name__}: {error}"
        else:
            results[name] = "yes"
    print(json.dumps({"client": client, "version": version(client), "probes": results}, ensure_ascii=False))


def check_form(value: Mapping[str, Any]) -> None:
    """A value of `FORM`."""
    assert set(value) == {"department", "urgent"}, value
    assert value["department"] in ("内科", "外科"), value
    assert isinstance(value["urgent"], bool), value
