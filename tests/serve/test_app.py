"""What `build` refuses before anything is started."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from configs.errors import ConfigError
from serve.app import build


def test_models_in_each_other_s_place(make_model: Callable[..., Path]) -> None:
    chat, judge = make_model("a"), make_model("judge", seed=3, reward=True)
    short = {"engine.max_model_len": "256"}
    with pytest.raises(ConfigError, match=r"^model=judge: .* is a reward model; give it as reward_model=DIR"):
        build({"model": str(judge), **short})
    with pytest.raises(ConfigError, match=r"named unlike the models"):
        build({"model": f"x={chat}", "reward_model": f"x={judge}", **short})
    with pytest.raises(ConfigError, match=r"the context of a is 256; ask for no more"):
        build({"model": str(chat)})
    with pytest.raises(ConfigError, match=r"^reward_model=b: .* has no scalar head"):
        build({"model": str(chat), "reward_model": str(make_model("b", seed=1)), **short})
    with pytest.raises(ConfigError, match=r"runs/nowhere/model"):
        build({"model": "runs/nowhere/model"})


def test_weights_of_another_architecture(make_model: Callable[..., Path]) -> None:
    other = make_model("deeper", num_hidden_layers=3)
    with pytest.raises(ConfigError, match=r"is not of the architecture of"):
        build({"model": str(make_model("a")), "weights": str(other), "engine.max_model_len": "256"})
