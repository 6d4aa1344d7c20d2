from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.model_folder.folders import ModelFolder
from configs.errors import ConfigError
from evals.models import sizing
from evals.models.sizing import Sizing, require_fit

QWEN: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864,
    "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151_936,
    "max_position_embeddings": 32_768, "tie_word_embeddings": False,
}  # fmt: skip


@pytest.fixture
def folder(make_model: Callable[..., Path], tmp_path: Path) -> ModelFolder:
    """A small model's folder that says that it is Qwen2.5-0.5B."""
    for file in make_model("a").iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(QWEN))
    return ModelFolder(tmp_path)


def test_the_engine_is_as_large_as_evaluations_need(folder: ModelFolder) -> None:
    on_cpu, on_gpu = (Sizing().engine_config(folder, gpu) for gpu in (False, True))
    assert (on_cpu.max_model_len, on_cpu.dtype, on_gpu.dtype) == (4096, "float32", "bfloat16")
    assert on_cpu.kv_cache_bytes == 4 * 2 * 24 * 128 * 32_768
    whole = Sizing(32_768, "bfloat16").engine_config(folder, False)
    assert (whole.max_model_len, whole.dtype) == (32_768, "bfloat16")
    assert whole.kv_cache_bytes == on_cpu.kv_cache_bytes // 2
    with pytest.raises(ConfigError, match="--max-model-len 40000: exceeds the 32768 tokens of "):
        Sizing(40_000).engine_config(folder, False)


def test_a_large_models_cache_is_bounded_but_holds_a_sequence(folder: ModelFolder) -> None:
    folder.config["max_position_embeddings"] = 131_072
    (folder.path / "config.json").write_text(json.dumps({**QWEN, "num_key_value_heads": 14, "num_hidden_layers": 80}))
    one = 4 * 2 * 80 * 896
    assert Sizing().engine_config(folder, False).kv_cache_bytes == one * 4096  # more than 1 GiB
    assert Sizing(1024).engine_config(folder, False).kv_cache_bytes == one * (2**30 // one)


def test_what_does_not_fit_is_refused_before_it_is_loaded(folder: ModelFolder, monkeypatch: Any) -> None:
    config = Sizing().engine_config(folder, False)
    monkeypatch.setattr(sizing, "available_bytes", lambda: 16 * 2**30)
    require_fit(folder, config, None, True)
    monkeypatch.setattr(sizing, "available_bytes", lambda: 6 * 2**30)
    require_fit(folder, config, None, False)
    with pytest.raises(ConfigError, match=r"4096 tokens in float32 needs about 16.0 GiB .* and 6.0 GiB are available"):
        require_fit(folder, config, None, True)
    require_fit(folder, Sizing().engine_config(folder, True), 80 * 2**30, True)
    with pytest.raises(ConfigError, match="0.0 GiB of 0.6 of the GPU .* too little for 4096 tokens"):
        require_fit(folder, Sizing().engine_config(folder, True), 2**30, True)
