"""GET /metrics: what the endpoint's processes measure, gathered from the metrics ports of the cluster's nodes.

Those ports ask for no token and belong inside a closed network; a Prometheus outside it scrapes the endpoint instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

import httpx

PREFIXES = ("ray_chimed_serve_", "ray_serve_", "ray_vllm_")
"""Beginnings of the names that concern the endpoint; runs on the same cluster are not its clients' business."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
NODE_S = 5.0
_UP = "chimed_metrics_node_up"


async def exposition(ports: Mapping[str, str]) -> str:
    """The endpoint's metrics of all nodes in Prometheus' text format.

    Args:
        ports: `HOST:PORT` of each node's metrics, by the node's id. One that does not answer within `NODE_S` seconds has
            `chimed_metrics_node_up` 0.
    """
    async with httpx.AsyncClient(timeout=NODE_S, trust_env=False) as client:
        texts = await asyncio.gather(*(_read(client, port) for port in ports.values()))
    up = [f"# HELP {_UP} whether the node's metrics could be read", f"# TYPE {_UP} gauge"]
    up += [f'{_UP}{{node="{node}"}} {int(text is not None)}' for node, text in zip(ports, texts, strict=True)]
    return "\n".join([*up, *merged([text for text in texts if text is not None], PREFIXES), ""])


async def _read(client: httpx.AsyncClient, port: str) -> str | None:
    try:
        answer = await client.get(f"http://{port}/metrics")
        answer.raise_for_status()
    except httpx.HTTPError:
        return None  # told as the node's `_UP`
    return answer.text


def merged(texts: Iterable[str], prefixes: tuple[str, ...]) -> list[str]:
    """Lines of several expositions as one: each family once, with the samples of all, as the format demands."""
    families: dict[str, tuple[dict[str, str], list[str]]] = {}
    for text in texts:
        family = ""
        for line in text.splitlines():
            if line.startswith(("# HELP ", "# TYPE ")):
                _, kind, family, *_ = line.split(" ", 3)
                if family.startswith(prefixes):
                    families.setdefault(family, ({}, []))[0].setdefault(kind, line)
            elif line and not line.startswith("#") and family in families:
                families[family][1].append(line)
    return [line for heads, samples in families.values() for line in (*heads.values(), *samples)]
