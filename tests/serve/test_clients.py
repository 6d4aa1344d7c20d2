"""Other people's clients, each a script in `clients/`, against the real endpoint: what works, and what docs/serving.md says of them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(__file__).parent / "clients"
PYTHON = ROOT / ".venv-clients/bin/python"
KEY = "a-key-for-this-test"
CLIENTS = ("openai", "anthropic", "langchain", "litellm", "llama_index", "instructor", "lm_eval")
ROW = re.compile(r"^\| `([^`]+)` ([0-9.]+) \| (.+) \| (.+) \|$", re.MULTILINE)
QUIET = {
    "DO_NOT_TRACK": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "LANGSMITH_TRACING": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "VLLM_NO_USAGE_STATS": "1",
}


def documented() -> dict[tuple[str, str], tuple[str, str]]:
    """Version and result of each client's probe, as the table in docs/serving.md has them."""
    table = (ROOT / "docs/serving.md").read_text().partition("## Clients")[2].partition("\n## ")[0]
    rows = {}
    for client, version, probes, result in ROW.findall(table):
        for probe in re.findall(r"`([^`]+)`", probes):
            assert (client, probe) not in rows, f"{client}: {probe} is there twice"
            rows[client, probe] = (version, result)
    return rows


def probe(endpoint: Any, name: str, python: Path, home: Path) -> Any:
    """What a client's script reports."""
    folder = endpoint.arguments["model"].partition("=")[2]
    # Of this process's environment nothing but the path: a proxy, a key or a cache would be used.
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "OMP_NUM_THREADS": "1", **QUIET}
    done = subprocess.run(
        [python, SCRIPTS / f"{name}_client.py", endpoint.url, KEY, "tiny", folder],
        capture_output=True, text=True, timeout=300, env=environment, cwd=home, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def check(report: Any) -> None:
    """The results of a client's probes are those of the table, and the table has no others."""
    rows = {probe: row for (client, probe), row in documented().items() if client == report["client"]}
    assert {version for version, _ in rows.values()} == {report["version"]}
    for name, result in report["probes"].items():
        version_and_result = rows.get(name)
        assert version_and_result is not None, f"docs/serving.md does not say what becomes of {name}"
        said = version_and_result[1]
        if quoted := re.search(r"\*([^*]+)\*", said):
            assert said.startswith("refused"), said
            assert quoted[1] in result, (name, result)
        else:
            assert (said, result) == ("yes", "yes"), (name, result)
    assert set(rows) == set(report["probes"])


@pytest.mark.extra
@pytest.mark.parametrize("name", CLIENTS)
def test_client(endpoint: Any, name: str, tmp_path: Path) -> None:
    if not PYTHON.exists():
        pytest.skip("there is no .venv-clients: make env-clients")
    check(probe(endpoint, name, PYTHON, tmp_path))


@pytest.mark.extra
def test_vllms_benchmark(endpoint: Any, tmp_path: Path) -> None:
    check(probe(endpoint, "vllm_bench", Path(sys.executable), tmp_path))


@pytest.mark.parametrize(
    ("host", "code", "said"),
    [("192.0.2.1", 3, "an attempt to reach 192.0.2.1"), ("127.0.0.1", 1, "ConnectionRefusedError")],
)
def test_a_script_reaches_this_machine_alone(host: str, code: int, said: str) -> None:
    script = f"import probing, socket; probing.local_only(); socket.create_connection(({host!r}, 1))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=SCRIPTS, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == code
    assert said in done.stderr


def test_the_table_has_every_client() -> None:
    locked = dict(re.findall(r"^([^=\n]+)==(.+)$", (ROOT / "locks/clients.txt").read_text(), re.MULTILINE))
    versions = {client: version for (client, _), (version, _) in documented().items()}
    versions.pop("vllm bench serve")
    assert len(versions) == len(CLIENTS)
    for client, version in versions.items():
        assert locked[client if client in locked else client.replace("-", "_")] == version
