from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from cluster.environment import for_computing, for_joined_cluster, for_local_cluster

BIN = str(Path(sys.executable).parent)


def test_what_the_user_set_stays(runs, monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.delenv("KMP_BLOCKTIME", raising=False)
    local = for_local_cluster()
    assert (local["OMP_WAIT_POLICY"], local["RAY_AUTH_MODE"], local["KMP_BLOCKTIME"]) == ("ACTIVE", "token", "0")
    assert local["CHIMED_RUNS"] == str(runs)


def test_the_tools_of_the_environment_are_found_once(monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin")
    assert for_local_cluster()["PATH"] == f"{BIN}{os.pathsep}/usr/bin"
    monkeypatch.setenv("PATH", f"/usr/bin{os.pathsep}{BIN}")
    assert for_local_cluster()["PATH"] == f"/usr/bin{os.pathsep}{BIN}"


def test_a_joined_cluster_keeps_its_own_network_and_the_jobs_variables(monkeypatch):
    job = {"runtime_env": {"env_vars": {"CHIMED_RUNS": "/shared/runs", "KMP_BLOCKTIME": "5"}}, "metadata": {}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(job))
    joined = for_joined_cluster()
    assert not {"CHIMED_RUNS", "KMP_BLOCKTIME", "RAY_AUTH_MODE", "GLOO_SOCKET_IFNAME"} & set(joined)
    assert joined["HF_HUB_OFFLINE"] == "1"
    monkeypatch.setenv("HF_HOME", "/shared/huggingface")
    assert for_joined_cluster()["HF_HOME"] == "/shared/huggingface"
    assert joined["PATH"] == f"{BIN}{os.pathsep}${{PATH}}"


def test_a_computing_process_on_cpus_has_its_threads_and_huge_pages(monkeypatch):
    for name in ("GLIBC_TUNABLES", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)
    on_cpus, on_gpus = for_computing(3, on_gpus=False), for_computing(3, on_gpus=True)
    of_vllm = for_computing(3, on_gpus=True, with_vllm=True)
    assert of_vllm == {"OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "3"}
    assert on_gpus == of_vllm | {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
    assert set(of_vllm.items()) < set(on_cpus.items())
    assert on_cpus["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
    assert (on_cpus["CUDA_VISIBLE_DEVICES"], on_cpus["DS_ACCELERATOR"]) == ("", "cpu")
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.arena_max=1")
    assert for_computing(3, on_gpus=False)["GLIBC_TUNABLES"] == "glibc.malloc.arena_max=1"
