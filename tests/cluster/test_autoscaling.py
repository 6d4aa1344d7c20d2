"""An autoscaler brings nodes for a trainer's placement groups and takes them away again: real Ray nodes, one machine.

Ray's autoscaler (v2) starts and ends Ray nodes as processes here, through its provider for tests, instead of pods.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest
import torch
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID
from ray.util import get_node_ip_address

from actors.modeling.models import load_scorer
from cluster.head import Head
from cluster.join import require_ray_at
from cluster.scaling import living
from cluster.status.view import ClusterView, snapshot
from configs.errors import ConfigError
from data.tables import PROMPTS, write_table

pytestmark = [pytest.mark.slow, pytest.mark.long]

ROOT = Path(__file__).resolve().parents[2]
NODE = {"CPU": 2, "object_store_memory": 100 * 2**20}


@pytest.fixture(scope="module")
def scaling() -> Iterator[str]:
    """The address of a head without CPUs, whose autoscaler may add three nodes of two CPUs each."""
    port, folder = free_port(), Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # a short name, for Ray's sockets
    address = f"{get_node_ip_address()}:{port}"
    (folder / "scaling.json").write_text(json.dumps(settings(address)))
    environment = {
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
        "RAY_AUTH_MODE": "disabled",
        "OMP_NUM_THREADS": "1",
    }
    ports = (f"--port={port}", f"--dashboard-port={free_port()}", "--dashboard-agent-listen-port=0")
    plain = ("--include-dashboard=false", "--disable-usage-stats")
    resources = ("--num-cpus=0", "--num-gpus=0", f"--object-store-memory={100 * 2**20}")
    config = (f"--temp-dir={folder}", f"--autoscaling-config={folder / 'scaling.json'}")
    ray = Path(sys.executable).with_name("ray")
    with (folder / "out.txt").open("w") as out:
        head = psutil.Popen(
            [str(ray), "start", "--head", "--block", *ports, *plain, *resources, *config],
            env={**os.environ, **environment},
            stdout=out,
            stderr=out,
        )
    try:
        soon(lambda: nodes(address) == 1, 60)
        yield address
    finally:
        end(head)
        shutil.rmtree(folder)


def settings(address: str) -> dict[str, Any]:
    """What `ray start --autoscaling-config` wants to know."""
    provider = {
        "type": "external",
        "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
        "launch_multiple": True,
        "gcs_address": address,
        "head_node_id": FAKE_HEAD_NODE_ID,
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    }
    kinds = {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "trainer": {"resources": NODE, "node_config": {}, "min_workers": 0, "max_workers": 3},
    }
    commands = ("setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray", "initialization")
    lists = (*(f"{name}_commands" for name in commands), "cluster_synced_files", "rsync_exclude", "rsync_filter")
    return {
        **{name: [] for name in lists},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        "cluster_name": "scaling",
        "max_workers": 3,
        "provider": provider,
        "auth": {},
        "available_node_types": kinds,
        "head_node_type": "ray.head.default",
        "idle_timeout_minutes": 0.1,
        "upscaling_speed": 1.0,
    }


def nodes(address: str) -> int:
    """How many nodes live; none while there is no head."""
    try:
        require_ray_at(address)
    except ConfigError:
        return 0
    with Head(address) as head:
        return len(living(head.resources()))


def free_port() -> int:
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1]


def end(head: psutil.Popen) -> None:
    """Ends a cluster: the processes below this one, and none else."""
    family = [head, *head.children(recursive=True)]
    head.terminate()
    _, left = psutil.wait_procs(family, timeout=20)
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=10)


def soon(check: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, f"still {found!r} after {seconds:g} s"
        time.sleep(0.5)
    return found


@pytest.fixture
def recipe(clinic: Path, tmp_path: Path) -> Path:
    """Twelve PPO steps of five roles with a CPU each: three nodes."""
    scorer = load_scorer(str(clinic / "model"), torch.float32)
    scorer.save_pretrained(tmp_path / "scorer")
    rows = [{"prompt": [{"role": "user", "content": f"病人{n}头痛怎么办"}]} for n in range(8)]
    write_table(pa.Table.from_pylist(rows, PROMPTS), tmp_path / "prompts.parquet")
    placement = {"cpus_per_rank": 1.0, "threads": 1}
    model = {"model": str(clinic / "model"), "placement": placement}
    scored = {"model": str(tmp_path / "scorer"), "placement": placement}
    ppo = {
        "name": "scaled",
        "cluster": {"start_timeout_s": 180.0},
        "prompts": {"train": [str(tmp_path / "prompts.parquet")], "max_tokens": 64},
        "steps": 12,
        "prompts_per_step": 4,
        "policy": model,
        "reference": model,
        "critic": scored,
        "reward": scored,
        "rollout": {
            "placement": placement,
            "max_new_tokens": 8,
            "engine": {"max_model_len": 512, "kv_cache_bytes": 2**26},
        },
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps({"ppo": ppo}))
    return path


def start(address: str, *command: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "RAY_ADDRESS": address, "RAY_AUTH_MODE": "disabled"}
    return subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_nodes_come_for_a_trainers_groups_and_leave_afterwards(scaling: str, recipe: Path, runs: Path) -> None:
    seen: list[ClusterView] = []
    with Head(scaling) as head:
        trainer = start(scaling, "-m", "trainers.ppo", "--insecure", "--config", str(recipe))
        try:
            while trainer.poll() is None:
                seen.append(snapshot(head))
                time.sleep(0.5)
        finally:
            trainer.kill()
        _, err = trainer.communicate()
        assert trainer.returncode == 0, err
        soon(lambda: nodes(scaling) == 1, 90)
    assert (runs / "scaled" / "DONE").exists()
    words = r"scaled/\w+ needs 1 CPU; the autoscaler is adding [123] nodes? \([123] trainer\); the cluster has \d CPU"
    assert re.search(rf" INFO ppo runs/scaled: {words}.* \(\d+ s\)$", err, re.MULTILINE), err
    assert max(len(view.nodes) for view in seen) == 4
    assert any(view.coming.keys() == {"trainer"} for view in seen)
    waiting = [group for view in seen for group in view.waiting]
    assert any(re.match(words, group.why) for group in waiting), waiting
    assert {group.name for group in waiting} >= {"scaled/policy", "scaled/rollout"}
    runs_seen = [run for view in seen for run in view.runs]
    assert max(len(run.ranks) for run in runs_seen) == 6
    assert {run.steps for run in runs_seen if run.step} == {12}
    used = {rank.node for run in runs_seen for rank in run.ranks if "/" in rank.node}  # ADDRESS/ID, once there are more
    assert {node.rpartition("/")[2] for node in used} == {"00000", "00001", "00002", "00003"}


BEYOND = """
from cluster.connect import connect
from cluster.placement import reserve
from configs.errors import one_line_errors
from configs.logs import configure
configure("beyond")
with one_line_errors("beyond"), connect(insecure=True):
    reserve({"beyond": [{"GPU": 1.0}]}, timeout_s=12)
"""


def test_what_the_autoscaler_cannot_add_is_said_in_its_words(scaling: str) -> None:
    out, err = start(scaling, "-c", BEYOND).communicate(timeout=120)
    words = "beyond needs 1 GPU; the autoscaler has no nodes left to add for it; the cluster has 0 GPU"
    *said, error = err.splitlines()
    assert out == ""
    assert any(f" INFO beyond: {words} (" in line for line in said)
    assert error == f"beyond: error: {words}: timed out after 12 s"
