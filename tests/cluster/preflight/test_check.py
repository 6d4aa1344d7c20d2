from __future__ import annotations

from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from cluster.preflight import check as module
from cluster.preflight.capacity import GIB, Capacity, parse_nodes
from cluster.preflight.check import check
from cluster.preflight.needs import Disk, Need, Place, Plan


def found(capacity: Capacity, *places: Place) -> dict[str, list[str]]:
    """Texts by level."""
    levels: dict[str, list[str]] = {}
    for finding in check(Plan({"ppo": places}), capacity):
        levels.setdefault(finding.level, []).append(f"{finding.subject}: {finding.text}")
    return levels


def need(role: str = "policy", ranks: int = 1, host: float = 0.0, gpu: float = 0.0, **bundle: float) -> Place:
    """A place of one role, sizes in GiB."""
    return Place(role, [bundle or {"CPU": 1.0}] * ranks, [Need(role, ranks, int(host * GIB), 0, int(gpu * GIB))])


def test_all_roles_together_need_less_than_all_nodes_have() -> None:
    capacity = parse_nodes("2x4CPU")
    assert "refused" not in found(capacity, need(ranks=5), need("critic", ranks=3))
    assert found(capacity, need(ranks=5), need("critic", ranks=4))["refused"] == [
        "resources: needs 9 CPU but the Ray cluster has 8 in all"
    ]


def test_a_process_needs_a_node_that_holds_it_whole() -> None:
    assert found(parse_nodes("4x2CPU"), need(ranks=2, CPU=3.0))["refused"] == [
        "policy: needs 2 x (3 CPU) but nodes hold 0 of these in all"
    ]
    assert "refused" not in found(parse_nodes("2x4CPU"), need(ranks=2, CPU=3.0))


def test_fractions_of_a_cpu_fill_it() -> None:
    assert "refused" not in found(parse_nodes("1CPU"), need(ranks=10, CPU=0.1))


def test_an_autoscaler_is_asked_before_anything_is_refused() -> None:
    levels = found(Capacity(parse_nodes("1CPU").nodes, open_ended=True), need(ranks=4))
    assert "refused" not in levels
    assert levels["unknown"][0].startswith("resources: needs 4 CPU but the Ray cluster has 1 now; its autoscaler")


@pytest.mark.parametrize(("host", "level"), [(3.9, "fits"), (4.5, "tight"), (5.0, "refused")])
def test_memory_is_refused_beyond_the_estimates_error(host: float, level: str) -> None:
    levels = found(parse_nodes("8CPU,8GiB"), need(ranks=2, host=host))
    assert any("the fullest node (2 policy) needs" in text for text in levels[level]), levels


def test_what_processes_share_counts_once_a_node() -> None:
    two = Place("policy", [{"CPU": 1.0}] * 2, [Need("policy", 2, 3 * GIB, 2 * GIB)])
    assert any("(2 policy) needs 4.0 GiB" in text for text in found(parse_nodes("8CPU,8GiB"), two)["fits"])


def test_processes_are_spread_over_nodes() -> None:
    levels = found(parse_nodes("2x2CPU,8GiB"), need(ranks=3, host=3.0))
    assert any("(2 policy) needs 6.0 GiB and has 8.0 GiB" in text for text in levels["fits"])


def test_a_gpu_holds_its_rank_or_a_share_of_one() -> None:
    capacity = parse_nodes("8CPU,2GPU,500GiB,L4")  # 23.3 GiB
    assert "refused" not in found(capacity, need(gpu=20.0, CPU=1.0, GPU=1.0))
    assert found(capacity, need(gpu=20.0, CPU=1.0, GPU=0.5))["refused"] == [
        "policy: a rank needs 20.0 GiB but has 11.6 GiB of a GPU"
    ]
    unknown = found(parse_nodes("8CPU,2GPU,500GiB"), need(gpu=20.0, CPU=1.0, GPU=1.0))["unknown"]
    assert unknown == ["policy: takes 20.0 GiB of a GPU, whose memory is not known here (--gpu-gib)"]


def test_roles_that_share_a_place_share_its_gpu() -> None:
    bundles = [{"CPU": 1.0, "GPU": 1.0}] * 2
    both = Place("policy+critic", bundles, [Need("policy", 2, GIB, 0, 14 * GIB), Need("critic", 1, GIB, 0, 14 * GIB)])
    levels = found(parse_nodes("4CPU,2GPU,64GiB,L4"), both)
    assert levels["refused"] == ["policy+critic: a rank needs 28.0 GiB but has 23.3 GiB of a GPU"]
    assert any("(2 policy, 1 critic) needs 3.0 GiB" in text for text in levels["fits"])
    assert "resources: 2 of 2 GPU" in levels["fits"]


def test_groups_follow_one_another() -> None:
    plan = Plan({"sampling": [need(ranks=4)], "fine-tuning": [need("sft", ranks=5)]})
    refused = [finding.text for finding in check(plan, parse_nodes("4CPU")) if finding.level == "refused"]
    assert refused == ["fine-tuning: needs 5 CPU but the Ray cluster has 4 in all"]


def test_the_disk_holds_what_is_not_written_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage(0, 0, 1000))

    def disk(count: int) -> Any:
        (finding,) = check(Plan({}, [Disk(str(tmp_path / "run"), count, "checkpoints")]), Capacity(()))
        return finding

    assert disk(1000).level == "fits"
    assert disk(1001).level == "refused"
    assert "(checkpoints) but" in disk(1001).text
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "step").write_bytes(b"x" * 10)
    assert disk(1010).level == "fits"


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.os, "access", lambda *_: False)
    (finding,) = check(Plan({}, [Disk(str(tmp_path / "a" / "b"), 1, "")]), Capacity(()))
    assert (finding.level, finding.text.split(";")[0]) == ("refused", f"{tmp_path} cannot be written to")
