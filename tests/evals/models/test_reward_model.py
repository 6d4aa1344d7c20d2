from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from actors.model_folder.folders import ModelFolder
from configs.errors import ConfigError
from evals.models import reward_model
from evals.models.reward_model import RewardModel, _batches


def test_equals_transformers_one_by_one_whatever_the_lengths(make_model: Callable[..., Path]) -> None:
    folder = make_model("reward", seed=5, reward=True)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(0)
    sequences = [torch.randint(10, 200, (n,), generator=generator).tolist() for n in (30, 3, 255, 1, 30, 17)]
    with torch.no_grad():
        expected = [model(input_ids=torch.tensor([ids])).logits.item() for ids in sequences]
    assert max(expected) - min(expected) > 0.1
    assert RewardModel(ModelFolder(folder)).score(sequences) == pytest.approx(expected, abs=1e-5)


def test_a_padding_token_at_the_end_is_a_token_like_others(make_model: Callable[..., Path]) -> None:
    model = RewardModel(ModelFolder(make_model("reward", seed=5, reward=True)))
    pad = model.folder.tokenizer.pad_token_id
    cut, whole = model.score([[20, 30, 40], [20, 30, 40, pad]])
    assert abs(cut - whole) > 1e-3


def test_batches_hold_every_row_once_within_their_size() -> None:
    lengths = [5000, 1, 4000, 4100, 9000, 2, 4096]
    batches = _batches(lengths)
    assert sorted(row for rows in batches for row in rows) == list(range(7))
    assert [[lengths[row] for row in rows] for rows in batches] == [[1, 2], [4000, 4096], [4100], [5000], [9000]]


def test_a_sequence_longer_than_the_context_is_named_with_both_numbers(make_model: Callable[..., Path]) -> None:
    model = RewardModel(ModelFolder(make_model("reward", seed=5, reward=True)))
    with pytest.raises(ConfigError, match=r"sample 1 has 257 tokens; the reward model .* takes 1 to 256"):
        model.score([[5], [5] * 257])


def test_a_broken_file_is_one_line(make_model: Callable[..., Path]) -> None:
    folder = make_model("reward-broken", reward=True)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ConfigError, match="not readable as weights"):
        RewardModel(ModelFolder(folder)).score([[5, 6]])


@pytest.mark.parametrize(("dtype", "wanted"), [("auto", torch.float32), ("bfloat16", torch.bfloat16)])
def test_it_computes_in_the_precision_that_is_asked_for(
    dtype: Any, wanted: torch.dtype, make_model: Callable[..., Path]
) -> None:
    folder = make_model("reward", seed=5, reward=True)
    sequences = [[20, 30, 40], [50] * 60]
    model = RewardModel(ModelFolder(folder), dtype)
    plain = AutoModelForSequenceClassification.from_pretrained(folder, dtype=wanted).eval()
    with torch.no_grad():
        expected = [plain(input_ids=torch.tensor([ids])).logits.item() for ids in sequences]
    assert model.score(sequences) == pytest.approx(expected, abs=1e-5 if wanted == torch.float32 else 0.02)
    assert {parameter.dtype for parameter in model._loaded().parameters()} == {wanted}


def test_on_a_gpu_it_is_loaded_in_bfloat16(make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: dict[str, Any] = {}

    class Loaded(torch.nn.Module):
        num_labels = 1

        def to(self, device: Any) -> Any:  # type: ignore[override]
            loaded["device"] = device
            return self

    def from_pretrained(_: Path, output_loading_info: bool, dtype: torch.dtype) -> tuple[Loaded, dict[str, list[str]]]:
        assert output_loading_info
        loaded["dtype"] = dtype
        return Loaded(), {"missing_keys": []}

    monkeypatch.setattr(reward_model, "gpu_bytes", lambda: 80 * 2**30)
    monkeypatch.setattr(AutoModelForSequenceClassification, "from_pretrained", from_pretrained)
    folder = ModelFolder(make_model("reward", seed=5, reward=True))
    RewardModel(folder)._loaded()
    assert loaded == {"dtype": torch.bfloat16, "device": "cuda"}
    RewardModel(folder, "float32")._loaded()
    assert loaded == {"dtype": torch.float32, "device": "cuda"}
