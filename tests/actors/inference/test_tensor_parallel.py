"""An engine of two processes computes what the trainer's model computes, and ends when one of them does."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from other_weights import change_weights

from actors.config import EngineConfig, PlacementConfig, RolloutConfig
from actors.inference.engine import Engine
from actors.modeling.models import load_causal_lm
from actors.weight_bits import SentBits
from tests.actors.inference.test_engine import PROMPTS, trainer_logprobs

CONFIG = EngineConfig(max_model_len=512, kv_cache_bytes=2**26, tensor_parallel_size=2)


@pytest.mark.slow
class TestOnTwoProcesses:
    @pytest.fixture(scope="class")
    def engine(self, clinic: Path) -> Iterator[Engine]:
        engine = Engine(str(clinic / "model"), CONFIG)
        yield engine
        engine.close()

    def test_responses_have_the_trainers_logprobs(self, clinic: Path, engine: Engine) -> None:
        answers = engine.generate(PROMPTS, seeds=[1, 2, 3], max_new_tokens=24)
        sequences = [prompt + answer.tokens for prompt, answer in zip(PROMPTS, answers, strict=True)]
        expected = trainer_logprobs(load_causal_lm(str(clinic / "model"), torch.float32), sequences)
        for prompt, answer, logprobs in zip(PROMPTS, answers, expected, strict=True):
            np.testing.assert_allclose(answer.logprobs, logprobs[len(prompt) - 1 :], atol=1e-4)

    def test_every_process_gets_its_part_of_new_weights(self, clinic: Path, engine: Engine) -> None:
        model = load_causal_lm(str(clinic / "model"), torch.float32)
        change_weights(model)
        sent = SentBits(torch.float32)
        for block in sent.over_blocks([dict(model.named_parameters())]):
            engine.load_weights(block.items())
        assert engine.bits == sent.total
        for new, logprobs in zip(engine.score(PROMPTS), trainer_logprobs(model, PROMPTS), strict=True):
            np.testing.assert_allclose(new, logprobs, atol=1e-4)


@pytest.mark.extra
@pytest.mark.parametrize("killed", ["a process", "the engine"])
def test_an_engine_and_its_processes_end_together(killed: str, clinic: Path) -> None:
    code = f"""
from actors.config import EngineConfig
from actors.inference.engine import Engine

if __name__ == "__main__":
    engine = Engine({str(clinic / "model")!r}, EngineConfig.model_validate({CONFIG.model_dump()!r}))
    print("ready", flush=True)
    while True:
        engine.generate([[5, 6]], seeds=[1], max_new_tokens=200)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert any(line == "ready\n" for line in parent.stdout)
    processes = [found for found in psutil.Process(parent.pid).children(recursive=True) if "Worker" in found.name()]
    assert len(processes) == 2
    (processes[1] if killed == "a process" else psutil.Process(parent.pid)).send_signal(signal.SIGKILL)
    _, error = parent.communicate(timeout=60)
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert not alive
    if killed == "a process":
        assert parent.returncode == 1
        assert "died: the engine exits" in error


@pytest.mark.parametrize(("gpus", "size"), [(1, 2), (2, 1), (4, 2), (0.5, 2)])
def test_an_engine_has_one_gpu_per_process(gpus: float, size: int) -> None:
    engine = {"tensor_parallel_size": size, "gpu_memory_utilization": 0.4}
    with pytest.raises(ValueError, match="an engine uses one GPU per process; set them to the same number"):
        RolloutConfig.model_validate({"placement": {"gpus_per_rank": gpus}, "engine": engine})
    accepted = {"placement": {"gpus_per_rank": size}, "engine": engine}
    assert RolloutConfig.model_validate(accepted).placement == PlacementConfig(gpus_per_rank=size)
