from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from actors.modeling.attention import packed_attention
from actors.modeling.miniature import WINDOW, layer_types, miniature
from actors.modeling.models import load_causal_lm, load_scorer
from actors.modeling.selfcheck import LENGTHS, check_packing, packed_difference
from configs.errors import ConfigError

EXACT = (
    "llama", "qwen2", "qwen3", "qwen2_moe", "qwen3_moe", "mistral", "mixtral", "gemma", "gemma2", "gemma3_text", "phi",
    "phi3", "glm", "glm4", "olmo2", "olmo3", "granite", "granitemoe", "gpt_oss", "deepseek_v3", "exaone4", "cohere2", "gpt2",
    "opt", "smollm3", "seed_oss", "ernie4_5",
)  # fmt: skip
REFUSED = {
    "bloom": "compute something else",  # ALiBi
    "minimax": "type linear_attention",
    "qwen3_next": "type linear_attention",
    "llama4_text": "type chunked_attention",
    "mamba": "recurrent layers",
    "rwkv": "recurrent layers",
    "bert": "looks ahead",
    "falcon": "does not run on packed sequences",
    "t5": "encoder-decoder",
    "gemma3": "more than text",
}


def config(family: str, **settings: Any) -> PretrainedConfig:
    return AutoConfig.for_model(family, **settings)


@pytest.mark.parametrize("family", EXACT)
def test_families_compute_packed_what_they_compute_alone(family: str) -> None:
    assert packed_difference(config(family)) < 5e-5
    check_packing(config(family), "policy.model")


@pytest.mark.parametrize("family", REFUSED)
def test_other_families_are_refused_by_name(family: str) -> None:
    with pytest.raises(ConfigError, match=f"policy.model: {family} cannot be trained here: .*{REFUSED[family]}"):
        check_packing(config(family), "policy.model")


@pytest.mark.parametrize(
    ("family", "settings", "dropped"),
    [
        ("mistral", {"sliding_window": 4096}, "sliding_window"),
        ("qwen2", {"use_sliding_window": True, "max_window_layers": 0, "sliding_window": 4096}, "sliding_window"),
        ("gemma3_text", {}, "sliding_window"),
        ("gemma2", {}, "softcap"),
        ("gpt_oss", {}, "s_aux"),
    ],
)
def test_an_argument_that_attention_drops_would_be_seen(
    monkeypatch: pytest.MonkeyPatch, family: str, settings: dict[str, Any], dropped: str
) -> None:
    from transformers import AttentionInterface

    def careless(*heads: Any, **arguments: Any) -> Any:
        arguments.pop(dropped, None)
        return packed_attention(*heads, **arguments)

    monkeypatch.setitem(AttentionInterface._global_mapping, "packed", careless)
    assert packed_difference(config(family, **settings)) > 0.01


def test_a_miniature_keeps_what_changes_arithmetic() -> None:
    whole = config("gemma2", num_hidden_layers=26, head_dim=256, query_pre_attn_scalar=224, sliding_window=4096)
    small = miniature(whole)
    assert layer_types(whole) == layer_types(small) == ["sliding_attention", "full_attention"]
    assert (small.num_hidden_layers, small.sliding_window) == (2, WINDOW)
    assert max(LENGTHS) > 2 * WINDOW
    assert small.query_pre_attn_scalar == 224
    assert small.attn_logit_softcapping
    assert small.final_logit_softcapping == whole.final_logit_softcapping
    assert small.head_dim * small.num_attention_heads != small.hidden_size
    assert small.num_attention_heads // small.num_key_value_heads == 8 // 4
    assert sum(p.numel() for p in AutoModelForCausalLM.from_config(small).parameters()) < 200_000


def test_rope_that_depends_on_the_longest_sequence_is_refused() -> None:
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 2048}
    with pytest.raises(ConfigError, match="set max_position_embeddings to 2048"):
        check_packing(config("llama", rope_parameters=rope, max_position_embeddings=8192), "model")
    check_packing(config("llama", rope_parameters=rope, max_position_embeddings=2048), "model")


def test_the_random_state_of_the_process_stays_as_it_is() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    packed_difference(config("llama"))
    assert torch.equal(torch.rand(3), expected)


def test_loading_checks(tmp_path: Path) -> None:
    AutoModelForCausalLM.from_config(miniature(config("bloom"))).save_pretrained(tmp_path)
    for load in (
        lambda: load_causal_lm(str(tmp_path), torch.float32),
        lambda: load_scorer(str(tmp_path), torch.float32),
    ):
        with pytest.raises(ConfigError, match="bloom cannot be trained here"):
            load()


@pytest.mark.parametrize("family", ["granite", "olmoe", "gemma3_text", "qwen3"])
def test_a_scalar_head_on_any_decoder(tmp_path: Path, family: str) -> None:
    """Of families with and without a sequence classifier in Transformers: it starts at 0 and is itself when loaded again."""
    from actors.modeling.packed import PackedBatch
    from actors.modeling.packed_models import PackedScorer

    AutoModelForCausalLM.from_config(miniature(config(family))).save_pretrained(tmp_path / "decoder")
    scorer = load_scorer(str(tmp_path / "decoder"), torch.float32)
    sequences = [list(range(4, 4 + length)) for length in (9, 20, 3)]
    assert not PackedScorer(scorer)(PackedBatch.of(sequences)).any()
    torch.nn.init.normal_(scorer.get_submodule("score").weight)
    with torch.no_grad():
        scores = PackedScorer(scorer)(PackedBatch.of(sequences))
        alone = torch.cat([PackedScorer(scorer)(PackedBatch.of([sequence])) for sequence in sequences])
        torch.testing.assert_close(scores, alone, rtol=1e-5, atol=1e-5)
        scorer.save_pretrained(tmp_path / "scorer")
        again = load_scorer(str(tmp_path / "scorer"), torch.float32)
        assert torch.equal(PackedScorer(again)(PackedBatch.of(sequences)), scores)
