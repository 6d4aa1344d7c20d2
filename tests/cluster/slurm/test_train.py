"""The Slurm script, with fakes of Slurm's and Ray's commands, which write their arguments to a file."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "cluster" / "slurm" / "train.sbatch"
LOG = 'echo "${0##*/} $*" >> "$CALLS"\n'
FAKES = {
    "ray": LOG,
    "srun": LOG,
    "scontrol": LOG + '[[ "$1 $2" == "show hostnames" ]] && printf "node1\\nnode2\\nnode3\\n"\nexit 0\n',
    "hostname": "echo 10.0.0.7 10.1.0.7\n",
    "python": LOG + 'echo "$RAY_ADDRESS $RAY_AUTH_MODE $(cat "$RAY_AUTH_TOKEN_PATH" | wc -c)" >> "$CALLS"\n',
}
UNTIL_SIGTERM = f"trap 'exit 75' TERM\n{FAKES['python']}while true; do sleep 0.05; done\n"


@pytest.fixture
def job(tmp_path: Path) -> dict[str, str]:
    """The environment of a job on three nodes, in a project folder whose environment consists of the fakes."""
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, body in FAKES.items():
        (programs / name).write_text(f"#!/usr/bin/env bash\n{body}")
        (programs / name).chmod(0o755)
    (programs / "activate").write_text(f"export PATH={programs}:$PATH\n")
    slurm = {"SLURM_JOB_ID": "30042", "SLURM_JOB_NUM_NODES": "3", "SLURM_JOB_NODELIST": "node[1-3]"}
    return {**os.environ, **slurm, "HOME": str(tmp_path), "CALLS": str(tmp_path / "calls")}


def start(job: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    command = ["bash", str(SCRIPT), *arguments]
    return subprocess.Popen(command, cwd=job["HOME"], env=job, stderr=subprocess.PIPE, text=True)


def calls(job: dict[str, str]) -> list[str]:
    path = Path(job["CALLS"])
    return path.read_text().splitlines() if path.exists() else []


def test_a_stage_runs_on_all_nodes_of_the_job(job: dict[str, str]) -> None:
    done = start(job, "ppo", "--config", "configs/laptop.yaml")
    assert (done.wait(30), done.communicate()[1]) == (0, "")
    assert sorted(calls(job)) == [
        "10.0.0.7:20042 token 65",
        "python -m trainers.ppo --config configs/laptop.yaml",
        "ray start --head --node-ip-address=10.0.0.7 --port=20042",
        "ray stop",
        "scontrol show hostnames node[1-3]",
        "srun --nodes=2 --exclude=node1 ray start --address=10.0.0.7:20042 --block",
    ]
    assert list(Path(job["HOME"], ".ray").iterdir()) == []


def test_a_job_near_its_limit_stops_with_a_checkpoint_and_is_queued_again(job: dict[str, str]) -> None:
    python = Path(job["HOME"], ".venv", "bin", "python")
    python.write_text(f"#!/usr/bin/env bash\n{UNTIL_SIGTERM}")
    running = start(job, "sft")
    deadline = time.monotonic() + 30
    while "10.0.0.7:20042 token 65" not in calls(job):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    running.send_signal(signal.SIGTERM)
    assert running.wait(30) == 75
    assert calls(job)[-2:] == ["scontrol requeue 30042", "ray stop"]


def test_a_stage_that_fails_is_not_queued_again(job: dict[str, str]) -> None:
    python = Path(job["HOME"], ".venv", "bin", "python")
    python.write_text(python.read_text() + "exit 2\n")
    assert start(job, "sft").wait(30) == 2
    assert "scontrol requeue 30042" not in calls(job)


def test_the_stage_is_required(job: dict[str, str]) -> None:
    running = start(job)
    assert running.wait(30) == 1
    assert "usage: sbatch cluster/slurm/train.sbatch STAGE" in running.communicate()[1]
