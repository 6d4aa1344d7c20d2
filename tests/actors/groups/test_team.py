"""Where the roles of PPO end up on a real Ray of two nodes, each with three CPUs and three GPUs in Ray's books."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.long]

ROOT = Path(__file__).resolve().parents[3]
PLACEMENTS = {  # ranks, CPUs and GPUs of each rank
    "policy": (2, 1, 1),
    "critic": (1, 0.5, 1),
    "reference": (1, 0.5, 1),
    "reward": (1, 0.25, 0),
    "rollout": (2, 0.5, 1),
}
FORMS = ("none", "[[policy,critic],[reference,rollout]]", "all")
ONE = {"CPU": 1.0, "GPU": 1.0}
HALF = {"CPU": 0.5, "GPU": 1.0}


@pytest.fixture(scope="module")
def placed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What tests/support/two_nodes.py found, by form."""
    settings = ["--rollout.engine.gpu_memory_utilization=0.4"]
    for role, metrics in PLACEMENTS.items():
        for key, figure in zip(("ranks", "cpus_per_rank", "gpus_per_rank"), metrics, strict=True):
            settings.append(f"--{role}.placement.{key}={figure}")
    folder = tmp_path_factory.mktemp("two-nodes")
    program = [sys.executable, str(ROOT / "tests" / "support" / "two_nodes.py"), str(folder)]
    done = subprocess.run(
        program + [" ".join([*settings, f"--colocate={form}"]) for form in FORMS],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return dict(zip(FORMS, lines, strict=True))


def reserved(form: dict[str, Any]) -> dict[str, list[dict[str, float]]]:
    return {
        name: [{k: v for k, v in b.items() if k != "node"} for b in bundles] for name, bundles in form["groups"].items()
    }


def test_apart_each_role_has_its_own_bundles(placed: dict[str, Any]) -> None:
    form = placed["none"]
    assert reserved(form) == {
        "policy": [ONE, ONE],
        "critic": [HALF],
        "reference": [HALF],
        "reward": [{"CPU": 0.25}],
        "rollout": [HALF, HALF],
    }
    assert {name: rank["share"] for name, rank in form["ranks"].items()} == {
        **{f"policy-{rank}": ONE for rank in range(2)},
        **{f"rollout-{rank}": HALF for rank in range(2)},
        **dict.fromkeys(("critic-0", "reference-0"), HALF),
        "reward-0": {"CPU": 0.25},
    }
    gpus = [(rank["node"], rank["devices"]) for rank in form["ranks"].values() if rank["devices"]]
    assert len(gpus) == len(set(gpus)) == 6
    assert len({rank["node"] for rank in form["ranks"].values()}) == 2


def test_groups_have_the_larger_need_and_the_shorter_role_the_first_bundles(placed: dict[str, Any]) -> None:
    form = placed[FORMS[1]]
    assert reserved(form) == {
        "policy+critic": [ONE, ONE],
        "reference+rollout": [HALF, HALF],
        "reward": [{"CPU": 0.25}],
    }
    ranks = form["ranks"]
    assert {name: rank["share"] for name, rank in ranks.items()} == {
        "policy-0": {"CPU": 0.6666, "GPU": 0.5},
        "critic-0": {"CPU": 0.3333, "GPU": 0.5},
        "policy-1": ONE,
        "reference-0": {"CPU": 0.25, "GPU": 0.5},
        "rollout-0": {"CPU": 0.25, "GPU": 0.5},
        "rollout-1": HALF,
        "reward-0": {"CPU": 0.25},
    }
    gpu = {name: (rank["node"], rank["devices"]) for name, rank in ranks.items()}
    assert gpu["policy-0"] == gpu["critic-0"] != gpu["policy-1"]
    assert gpu["reference-0"] == gpu["rollout-0"] != gpu["rollout-1"]
    assert len({gpu[name] for name in ("policy-0", "policy-1", "rollout-0", "rollout-1")}) == 4
    assert ranks["reward-0"]["devices"] == ""
    assert len({rank["node"] for rank in ranks.values()}) == 2  # four GPUs are more than one node has


def test_all_share_what_the_largest_role_needs(placed: dict[str, Any]) -> None:
    form = placed["all"]
    assert reserved(form) == {"policy+critic+reference+reward+rollout": [ONE, ONE]}
    ranks = form["ranks"]
    shares = {name: (rank["share"]["CPU"], rank["share"].get("GPU")) for name, rank in ranks.items()}
    assert shares == {
        "policy-0": (0.3636, 0.25),
        "critic-0": (0.1818, 0.25),
        "reference-0": (0.1818, 0.25),
        "reward-0": (0.0909, None),
        "rollout-0": (0.1818, 0.25),
        "policy-1": (0.6666, 0.5),
        "rollout-1": (0.3333, 0.5),
    }
    gpu = {name: (rank["node"], rank["devices"]) for name, rank in ranks.items() if name != "reward-0"}
    first = {place for name, place in gpu.items() if name.endswith("-0")}
    second = {place for name, place in gpu.items() if name.endswith("-1")}
    assert len(first) == len(second) == 1
    assert first != second


@pytest.mark.parametrize("form", FORMS)
def test_ranks_are_where_their_bundle_is_and_the_status_says_so(form: str, placed: dict[str, Any]) -> None:
    for name, rank in placed[form]["ranks"].items():
        role, number = name.split("-")
        group, bundle = rank["bundle"].split()
        assert role in group.split("+")
        assert bundle == number
        assert rank["node"] == placed[form]["groups"][group][int(bundle)]["node"]
