"""GET /metrics: metrics of the endpoint's processes, collected from the metrics ports of the cluster's nodes.

Those ports have no authentication and must stay inside a closed network; a Prometheus outside it scrapes the endpoint.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

import httpx

PREFIXES = ("ray_chimed_serve_", "ray_serve_", "ray_vllm_")
"""Name prefixes of the endpoint's metrics. Metrics of training runs on the same cluster are not exposed to clients."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
NODE_S = 5.0
_UP = "chimed_metrics_node_up"


async def exposition(ports: Mapping[str, str]) -> str:
    """Returns the endpoint's metrics from all nodes in Prometheus text format.

    Args:
        ports: `HOST:PORT` of each node's metrics port, by node id. A node that does not respond within `NODE_S` seconds
            gets `chimed_metrics_node_up` 0.
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
        return None  # reported by the node's `_UP` metric
    return answer.text


def merged(texts: Iterable[str], prefixes: tuple[str, ...]) -> list[str]:
    """Merges several expositions: each metric family appears once, with all samples, as the format requires.

    Args:
        texts: expositions in Prometheus text format.
        prefixes: only families whose name starts with one of these are kept.

    Returns:
        Lines of the merged exposition.
    """
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
