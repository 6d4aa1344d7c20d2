"""The command, on recipes whose models need not be there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cluster.preflight.__main__ import main

ROOT = Path(__file__).parents[3]
SEVEN = "hidden=3584,layers=28,intermediate=18944,heads=28,kv_heads=4,vocab=152064,qkv_bias=1,context=32768"
THIRTEEN = "hidden=5120,layers=40,intermediate=13824,heads=40,vocab=39424"
SEVENTY = "hidden=8192,layers=80,intermediate=28672,heads=64,kv_heads=8,vocab=128256"
ZIYA = ["--config", "configs/ziya2-13b-16xh100.yaml", "--shape", THIRTEEN]
NODES = ["--nodes", "2x64CPU,8GPU,1000GiB,H100"]


def refused(capsys: Any, *arguments: str) -> tuple[str, str]:
    """Output and the one line on stderr of a call that is refused."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1
    return out, err


def test_the_recipe_for_sixteen_gpus_fits_them(capsys: Any) -> None:
    main([*ZIYA, *NODES, "--verbose"])
    out = capsys.readouterr().out
    for stage in ("pretrain", "sft", "reward", "dpo", "ppo", "rejection"):
        assert f"{stage} (ziya2-13b/{stage})" in out
    assert "refused" not in out
    assert "policy x 6     GPU" in out
    assert "(4 + 8) B x 13,091,886,080 / 16" in out
    assert "reads the model into shards, one parameter at a time" in out
    assert "every rank reads" not in out


def test_a_stage_is_one_line_without_verbose(capsys: Any) -> None:
    main([*ZIYA, *NODES, "--stage", "sft"])
    stage, _ = capsys.readouterr().out.splitlines()  # and the installed packages
    assert re.fullmatch(r"sft \(ziya2-13b/sft\): (fits|unknown: .*|tight: .*)", stage)
    out, _ = refused(capsys, *ZIYA, "--stage", "ppo", "--nodes", "1x64CPU,8GPU,2000GiB,H100")
    assert out.splitlines()[0].startswith(
        "ppo (ziya2-13b/ppo): refused: resources: needs 16 GPU but the Ray cluster has 8 in all"
    )


def test_half_of_them_are_too_few(capsys: Any) -> None:
    _, err = refused(capsys, *ZIYA, "--stage", "ppo", "--nodes", "1x64CPU,8GPU,2000GiB,H100")
    assert "ppo: resources: needs 16 GPU but the Ray cluster has 8 in all" in err


def test_too_small_gpus_are_refused_with_what_would_fit(capsys: Any) -> None:
    _, err = refused(capsys, *ZIYA, "--stage", "sft", "--nodes", "2x64CPU,8GPU,1000GiB,T4")
    assert "sft: trainer: a rank needs" in err
    assert "the nearest setting that would fit: --" in err or "no setting of the roles would fit" in err


@pytest.mark.parametrize(
    ("recipe", "shape", "nodes", "settings", "rank"),
    [
        ("qwen2.5-7b-8xh100", SEVEN, "1x64CPU,8GPU,500GiB,L4", ("offload_optimizer=true",), "12.8 GiB and has 23.3"),
        ("ziya2-13b-16xh100", THIRTEEN, "2x64CPU,8GPU,1000GiB,A100-40G", (), "26.8 GiB and has 38.8"),
        ("ziya2-13b-16xh100", SEVENTY, "4x128CPU,8GPU,2000GiB,H100", ("placement.ranks=32",), "58.9 GiB and has 77.6"),
        (
            "ziya2-13b-16xh100", SEVENTY, "2x128CPU,8GPU,2000GiB,H100", ("offload_optimizer=true",), "38.8 GiB and has 77.6",
        ),
    ],
)  # fmt: skip
def test_large_models_fit_since_no_rank_holds_them_whole(
    recipe: str, shape: str, nodes: str, settings: tuple[str, ...], rank: str, capsys: Any
) -> None:
    more = [f"--zero.{name}" if name.startswith("offload") else f"--{name}" for name in settings]
    tokens = ["--micro_batch_tokens=4096"] if shape == SEVEN else []
    main(
        [
            "--config",
            f"configs/{recipe}.yaml",
            "--shape",
            shape,
            "--stage",
            "sft",
            "--nodes",
            nodes,
            *more,
            *tokens,
            "--verbose",
        ]
    )
    out = capsys.readouterr().out
    assert "refused" not in out
    assert f"a rank needs {rank}" in out
    assert "reads the model into shards" in out


def test_rlhf_of_seventy_billion_is_refused_where_an_engine_has_one_gpu(capsys: Any) -> None:
    asked = [*ZIYA[:2], "--shape", SEVENTY, "--stage", "ppo"]
    _, err = refused(capsys, *asked, "--nodes", "16x128CPU,8GPU,2000GiB,H100")
    assert "rollout: an engine's weights and activations need 134." in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "nowhere.yaml"], "--config=nowhere.yaml: there is no such file"),
        ([*ZIYA, "--seed=1"], "--seed=1: name the stage of this setting with --stage pretrain|sft"),
        ([*ZIYA, *NODES, "--stage", "ppo", "--policy.zero.stag=2"], "did you mean 'stage'"),
        ([*ZIYA, "--nodes", "many"], "--nodes: 'many' is not a resource"),
        ([*ZIYA[:2], "--shape", "layers=2"], "--shape: give "),
        ([*ZIYA[:2], *NODES, "--stage", "sft"], "sft: inputs: model: there is no folder"),
    ],
)
def test_what_cannot_be_read_is_one_line(arguments: list[str], message: str, capsys: Any) -> None:
    assert message in refused(capsys, *arguments)[1]


@pytest.mark.slow
def test_too_much_for_this_machine_is_refused(clinic: Path) -> None:
    tables = [f"--data.{split}=[{clinic / f'sft.{split}.parquet'}]" for split in ("train", "heldout")]
    done = subprocess.run(
        [sys.executable, "-m", "cluster.preflight", "--config", "configs/laptop.yaml", "--stage", "sft",
         f"--model={clinic / 'model'}", "--data.max_tokens=512", "--placement.gpus_per_rank=1", *tables],
        capture_output=True, text=True, cwd=ROOT, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert "sft: resources: needs 1 GPU but the Ray cluster has 0 in all" in done.stderr


def test_a_model_of_the_hub_is_looked_at_without_its_weights(hub: Any, clinic: Path, capsys: Any) -> None:
    commit = hub.commit("models", "org/model", clinic / "model")
    tables = [f"--data.{split}=[{clinic}/sft.{split}.parquet]" for split in ("train", "heldout")]
    given = ["--config", "configs/laptop.yaml", "--stage", "sft", "--data.max_tokens=512", *tables]
    main([*given, "--model=org/model", "--nodes", "2CPU,8GiB", "--verbose"])
    out, err = capsys.readouterr()
    assert "memory is not known" not in out
    assert "model: org/model" in out
    assert f"org/model: commit {commit}" in err
    assert not any("safetensors" in request for request in hub.requests)
    _, err = refused(capsys, *given, "--model=org/none", "--nodes", "2CPU,8GiB")
    assert "there is no such repository" in err
