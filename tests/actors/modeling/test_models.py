from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from actors.config import ArchitectureConfig
from actors.modeling.models import load_causal_lm, load_scorer, new_causal_lm, save_pretrained
from actors.modeling.packed import PackedBatch
from actors.modeling.packed_models import PackedLM, PackedScorer
from actors.modeling.packing import Packing
from configs.errors import ConfigError

SHAPE = ArchitectureConfig(hidden_size=16, intermediate_size=24, layers=2, heads=4, kv_heads=2, context=32)


def model(seed: int = 0) -> PreTrainedModel:
    return new_causal_lm(SHAPE, vocab_size=40, bos=1, eos=2, pad=3, seed=seed)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lm = model()
    weights = {name: parameter.detach() for name, parameter in lm.named_parameters()}
    save_pretrained(lm, weights, tmp_path / "lm")
    return tmp_path / "lm"


def test_a_new_model_has_the_shape_asked_for_and_follows_the_seed() -> None:
    config = model().config
    assert (config.hidden_size, config.num_hidden_layers, config.num_key_value_heads) == (16, 2, 2)
    assert (config.max_position_embeddings, config.vocab_size, config.tie_word_embeddings) == (32, 40, True)
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (1, 2, 3)
    first, same, other = (model(seed).get_input_embeddings().weight for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@torch.no_grad()
def test_plain_transformers_loads_an_export_and_computes_the_same(folder: Path) -> None:
    ids = torch.arange(4, 12)[None]
    ours = load_causal_lm(str(folder), torch.float32)(ids, packing=Packing((8,), ids.device)).logits
    theirs = AutoModelForCausalLM.from_pretrained(folder)
    assert theirs.config._attn_implementation != "packed"
    torch.testing.assert_close(ours, theirs(ids).logits, rtol=0, atol=1e-6)


def test_a_fresh_head_scores_zero_on_the_causal_models_own_trunk(folder: Path) -> None:
    for seed in (0, 1):  # nothing in it is random
        torch.manual_seed(seed)
        scorer = load_scorer(str(folder), torch.float32)
        assert scorer.get_submodule("score").weight.shape == (1, 16)
        assert scorer.get_submodule("score").weight.abs().max() == 0
        assert torch.equal(scorer.get_input_embeddings().weight, model().get_input_embeddings().weight)


def test_a_trained_head_is_kept(folder: Path, tmp_path: Path) -> None:
    scorer = load_scorer(str(folder), torch.float32)
    torch.nn.init.constant_(scorer.get_parameter("score.weight"), 0.5)
    save_pretrained(scorer, dict(scorer.named_parameters()), tmp_path / "scorer")
    for loaded in (
        load_scorer(str(tmp_path / "scorer"), torch.float32),
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "scorer"),
    ):
        assert torch.equal(loaded.get_parameter("score.weight"), torch.full((1, 16), 0.5))
        assert loaded.config.num_labels == 1


def test_the_precision_is_the_one_asked_for(folder: Path) -> None:
    assert load_causal_lm(str(folder), torch.bfloat16).dtype == torch.bfloat16
    assert load_scorer(str(folder), torch.float32).dtype == torch.float32


@pytest.mark.parametrize("load", [load_causal_lm, load_scorer])
def test_a_missing_folder_is_one_line(load: object, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no folder .*none; name a folder"):
        load(str(tmp_path / "none"), torch.float32)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("family", "asked"),
    [
        ("llama", {"attention_dropout": 0.5}),
        ("granite", {"attention_dropout": 0.5}),
        ("phi3", {"resid_pdrop": 0.5}),
        ("phi3", {"attention_dropout": 0.5}),
    ],
)
def test_dropout_is_off_unless_it_is_asked_for_and_stays_in_the_export(
    family: str, asked: dict[str, float], tmp_path: Path
) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = AutoConfig.for_model(family, vocab_size=50, num_key_value_heads=2, pad_token_id=0, **sizes, **asked)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    batch = PackedBatch.of([list(range(1, 20)), list(range(20, 40))])
    for load, wrapper in ((load_causal_lm, PackedLM), (load_scorer, PackedScorer)):
        for dropout in (False, True):
            model = load(str(tmp_path / "model"), torch.float32, dropout=dropout)
            if load is load_scorer:
                torch.nn.init.ones_(model.get_submodule("score").weight)
            module = wrapper(model)
            evaluated = module.eval()(batch)
            trained = module.train()(batch)
            assert torch.equal(first(evaluated), first(trained)) is not dropout
            save_pretrained(model, model.state_dict(), tmp_path / "export")
            exported = AutoConfig.from_pretrained(tmp_path / "export")
            assert {name: getattr(exported, name) for name in asked} == asked


def first(outputs: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
    return outputs if isinstance(outputs, torch.Tensor) else outputs[0]
