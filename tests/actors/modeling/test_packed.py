from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from actors.config import ArchitectureConfig
from actors.modeling.attention import _grouped_heads, packed_attention
from actors.modeling.models import new_causal_lm
from actors.modeling.packed import PackedBatch
from actors.modeling.packed_models import PackedLM
from actors.modeling.packing import Packing
from data.packing import pack_blocks

SEQUENCES = [[5, 6, 7, 8, 9], [10], [11, 12, 13], [5, 6, 7, 14]]


@pytest.fixture(params=[4, 2], ids=["heads=kv_heads", "grouped heads"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    shape = ArchitectureConfig(
        hidden_size=32, intermediate_size=48, layers=2, heads=4, kv_heads=request.param, context=64
    )
    return new_causal_lm(shape, vocab_size=50, bos=1, eos=2, pad=3, seed=0).double().eval()


def packing(*lengths: int) -> Packing:
    return Packing(lengths, torch.device("cpu"))


def one_by_one(model: PreTrainedModel, sequences: list[list[int]]) -> torch.Tensor:
    """Log-probabilities of every token but each first, from a plain forward pass a sequence."""
    found = []
    for sequence in sequences:
        logits = model(torch.tensor([sequence]), packing=packing(len(sequence))).logits[0, :-1].float()
        found.append(logits.log_softmax(-1).gather(1, torch.tensor(sequence[1:])[:, None]).squeeze(1))
    return torch.cat(found)


def padded(model: PreTrainedModel, sequences: list[list[int]]) -> torch.Tensor:
    """The same from one padded batch through Transformers' own masked attention."""
    longest = max(map(len, sequences))
    ids = torch.tensor([sequence + [3] * (longest - len(sequence)) for sequence in sequences])
    mask = torch.tensor([[1] * len(sequence) + [0] * (longest - len(sequence)) for sequence in sequences])
    model.set_attn_implementation("sdpa")
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
    model.set_attn_implementation("packed")
    logprobs = logits.log_softmax(-1).gather(2, ids[:, 1:, None]).squeeze(2)
    return logprobs[mask[:, 1:].bool()]


@torch.no_grad()
def test_packed_equals_padded_equals_one_by_one(model: PreTrainedModel) -> None:
    packed, _ = PackedLM(model)(PackedBatch.of(SEQUENCES))
    torch.testing.assert_close(packed, one_by_one(model, SEQUENCES), rtol=0, atol=1e-6)
    torch.testing.assert_close(packed, padded(model, SEQUENCES), rtol=0, atol=1e-6)


@pytest.mark.parametrize("rows", [1, 3, 9])
def test_logits_in_pieces_change_nothing(model: PreTrainedModel, rows: int) -> None:
    batch = PackedBatch.of(SEQUENCES)
    whole, pieces = PackedLM(model), PackedLM(model, logits=50 * rows)
    gradients = []
    for lm in (whole, pieces):
        model.zero_grad()
        logprobs, entropies = lm(batch, temperature=0.7, entropy=True)
        (logprobs.square().sum() + entropies.sum()).backward()
        gradients.append([logprobs.detach(), entropies.detach(), *(p.grad.clone() for p in model.parameters())])
        with torch.no_grad():
            assert torch.equal(logprobs, lm(batch, temperature=0.7, entropy=True)[0])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_logits_in_pieces_under_a_head_that_is_not_trained(model: PreTrainedModel) -> None:
    head = model.get_output_embeddings()
    head.requires_grad_(False)
    calls: list[int] = []
    head.register_forward_hook(lambda *given: calls.append(given[2].shape[-2]))
    batch = PackedBatch.of(SEQUENCES)
    weights = torch.linspace(-1, 2, len(batch.predict))
    gradients = []
    for lm in (PackedLM(model), PackedLM(model, logits=50 * 3)):
        model.zero_grad()
        (lm(batch, temperature=0.7)[0] * weights).sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.requires_grad])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert calls == [9, 1, 3, 3, 3]  # whole; one position beside the hidden states, then each piece once


@torch.no_grad()
def test_a_sequence_does_not_see_its_neighbors(model: PreTrainedModel) -> None:
    lm = PackedLM(model)
    first, _ = lm(PackedBatch.of([[20, 21, 22, 23], SEQUENCES[0]]))
    second, _ = lm(PackedBatch.of([[30, 31], SEQUENCES[0], [40, 41]]))
    torch.testing.assert_close(first[3:], second[1:5], rtol=0, atol=1e-12)


@torch.no_grad()
def test_changing_one_document_changes_no_other_documents_loss(model: PreTrainedModel) -> None:
    rng = np.random.default_rng(0)
    documents = [np.array([10 + n, *rng.integers(4, 10, n), 2], dtype=np.int32) for n in range(24)]  # told by the first
    changed = [*documents[:7], np.array([17, *rng.integers(30, 49, 7), 2], dtype=np.int32), *documents[8:]]

    def losses(corpus: list[np.ndarray]) -> dict[tuple[int, int], list[float]]:
        """Of every document, by its place in the blocks: its tokens' log-probabilities."""
        found = {}
        for number, block in enumerate(pack_blocks(corpus, 48, seed=5).to_pylist()):
            sequences = np.split(np.array(block["tokens"]), np.cumsum(block["lengths"])[:-1])
            batch = PackedBatch.of(sequences)
            logprobs = PackedLM(model)(batch)[0].split(batch.target_counts)
            found |= {(number, place): each.tolist() for place, each in enumerate(logprobs)}
        return found

    before, after = losses(documents), losses(changed)
    assert before.keys() == after.keys()
    blocks = pack_blocks(documents, 48, seed=5).to_pylist(), pack_blocks(changed, 48, seed=5).to_pylist()
    touched = [
        (number, int(np.searchsorted(np.cumsum(one["lengths"]), place, side="right")))
        for number, (one, other) in enumerate(zip(*blocks, strict=True))
        for place in np.flatnonzero(np.array(one["tokens"]) != np.array(other["tokens"])).tolist()
    ]
    assert touched
    assert {key for key in before if before[key] != after[key]} == set(touched)


@torch.no_grad()
def test_temperature_and_entropy_are_those_of_the_sampled_distribution(model: PreTrainedModel) -> None:
    batch = PackedBatch.of(SEQUENCES[:1])
    logprobs, entropy = PackedLM(model)(batch, 0.7, True)
    logits = model(torch.tensor(SEQUENCES[:1]), packing=packing(5)).logits[0, :-1].float() / 0.7
    distribution = torch.distributions.Categorical(logits=logits)
    torch.testing.assert_close(logprobs, distribution.log_prob(batch.targets), rtol=0, atol=1e-6)
    torch.testing.assert_close(entropy, distribution.entropy(), rtol=0, atol=1e-6)


def test_gradients_of_a_pack_are_the_sum_of_its_sequences(model: PreTrainedModel) -> None:
    lm = PackedLM(model)

    def gradient(batches: list[PackedBatch]) -> torch.Tensor:
        model.zero_grad()
        for batch in batches:
            lm(batch)[0].sum().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    together = gradient([PackedBatch.of(SEQUENCES)])
    apart = gradient([PackedBatch.of([sequence]) for sequence in SEQUENCES if len(sequence) > 1])
    torch.testing.assert_close(together, apart, rtol=1e-6, atol=1e-8)


def test_which_positions_are_predicted() -> None:
    batch = PackedBatch.of([[5, 6, 7], [8, 9]])
    assert batch.predict.tolist() == [0, 1, 3]
    assert batch.targets.tolist() == [6, 7, 9]
    assert batch.last_positions.tolist() == [2, 4]
    assert batch.target_counts == [2, 1]
    assert batch.model_inputs()["position_ids"].tolist() == [[0, 1, 2, 0, 1]]


def test_targets_mask_and_a_first_token_is_never_predicted() -> None:
    batch = PackedBatch.of([[5, 6, 7], [8, 9], [4, 4]], [[1, 0, 1], [1, 1], [1, 0]])
    assert batch.targets.tolist() == [7, 9]
    assert batch.target_counts == [1, 1, 0]


@pytest.mark.parametrize("sequences", [[], [[1], []]])
def test_empty_sequences_are_refused(sequences: list[list[int]]) -> None:
    with pytest.raises(ValueError, match=r"none may be empty"):
        PackedBatch.of(sequences)


def test_a_mask_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"another length"):
        PackedBatch.of([[1, 2]], [[1]])


def test_an_attention_mask_is_refused() -> None:
    heads = torch.zeros(1, 2, 3, 4)
    with pytest.raises(ValueError, match=r"takes no mask"):
        packed_attention(
            torch.nn.Module(), heads, heads, heads, torch.ones(1, 1, 3, 3), scaling=1.0, packing=packing(3)
        )


@pytest.mark.gpu
def test_the_fused_kernel_agrees_with_one_call_a_sequence() -> None:
    generator = torch.Generator("cuda").manual_seed(0)
    query = torch.randn(1, 8, 300, 64, device="cuda", dtype=torch.bfloat16, generator=generator)
    key, value = (
        torch.randn(1, 2, 300, 64, device="cuda", dtype=torch.bfloat16, generator=generator) for _ in range(2)
    )
    lengths = (100, 1, 150, 49)
    fused, _ = packed_attention(
        torch.nn.Module(), query, key, value, None, scaling=0.125, packing=Packing(lengths, query.device)
    )
    exact, _ = packed_attention(
        torch.nn.Module(),
        query.float(),
        key.float(),
        value.float(),
        None,
        scaling=0.125,
        packing=Packing(lengths, query.device),
    )
    torch.testing.assert_close(fused.float(), exact, rtol=2e-2, atol=2e-2)


def test_grouped_heads_are_asked_for_where_torch_has_the_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.nn.attention import varlen

    def of_torch_2_13(query: Any, *, enable_gqa: bool = False) -> None: ...

    def of_torch_2_11(query: Any) -> None: ...

    for function, arguments in ((of_torch_2_13, {"enable_gqa": True}), (of_torch_2_11, {})):
        monkeypatch.setattr(varlen, "varlen_attn", function)
        assert _grouped_heads.__wrapped__() == arguments
