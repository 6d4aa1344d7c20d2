from __future__ import annotations

import os

import pytest


@pytest.mark.slow
def test_ray_trains_ranks_listen_on_loopback_only(ray_cluster: None, tmp_path) -> None:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from trainers.supervised.torch_world import WorldConfig

    def work() -> None:
        import torch

        from cluster.sockets import listeners

        total = torch.ones(1)
        torch.distributed.all_reduce(total)
        found = {each.address for each in listeners([os.getpid()])}
        (tmp_path / str(torch.distributed.get_rank())).write_text(f"{total.item()} {sorted(found)}")

    TorchTrainer(
        work,
        torch_config=WorldConfig(backend="gloo"),
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(name="world", storage_path=str(tmp_path / "train")),
    ).fit()
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["2.0 ['127.0.0.1']"] * 2
