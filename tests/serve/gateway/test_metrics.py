"""Metrics of several nodes as one exposition."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from prometheus_client.parser import text_string_to_metric_families

from serve.gateway.metrics import exposition, merged


def of_node(node: str) -> str:
    return (
        "# HELP ray_chimed_serve_queue requests\n# TYPE ray_chimed_serve_queue gauge\n"
        f'ray_chimed_serve_queue{{node="{node}"}} 2.0\n'
        "# HELP ray_chimed_step steps of a run\n# TYPE ray_chimed_step gauge\n"
        'ray_chimed_step{run="a"} 7.0\n'
        "# HELP ray_vllm_wait seconds\n# TYPE ray_vllm_wait histogram\n"
        f'ray_vllm_wait_bucket{{node="{node}",le="+Inf"}} 3.0\nray_vllm_wait_count{{node="{node}"}} 3.0\n'
    )


@pytest.fixture
def port() -> Iterator[str]:
    class Agent(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = of_node("a").encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Agent) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_each_family_comes_once_with_the_samples_of_all_nodes() -> None:
    lines = merged([of_node("a"), of_node("b")], ("ray_chimed_serve_", "ray_vllm_"))
    families = {family.name: family for family in text_string_to_metric_families("\n".join(lines) + "\n")}
    assert set(families) == {"ray_chimed_serve_queue", "ray_vllm_wait"}
    assert [sample.labels["node"] for sample in families["ray_chimed_serve_queue"].samples] == ["a", "b"]
    assert len(families["ray_vllm_wait"].samples) == 4
    assert sum(line.startswith("# TYPE ray_vllm_wait") for line in lines) == 1


def test_a_node_that_does_not_answer_is_told(port: str) -> None:
    text = asyncio.run(exposition({"a": port, "b": "127.0.0.1:1"}))
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert {sample.labels["node"]: sample.value for sample in families["chimed_metrics_node_up"].samples} == {
        "a": 1,
        "b": 0,
    }
    assert families["ray_chimed_serve_queue"].samples[0].value == 2
