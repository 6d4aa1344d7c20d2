"""An update is the same, to fp32 rounding, on 1 or 2 ranks, in micro-batches of any size, in any order, packed or not.

The oracle is written out in plain torch: Transformers' own attention on padded rows, one row a batch, one process, the
losses from their papers. Everything else is what a run of trainers.ppo does, with real DeepSpeed and, for two ranks, gloo.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from ranks import on_ranks
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from actors.config import OptimizerConfig, TrainedRoleConfig
from actors.groups.batching import minibatch_plans
from actors.modeling.rows import lengths
from actors.roles.critic import Critic
from actors.roles.learner import Learner, Update
from actors.roles.policy import Policy
from data.tables import write_table
from trainers.config.algorithm import AlgorithmConfig
from trainers.rlhf.advantages import add_weights
from trainers.rlhf.losses import ClippedPolicyLoss, ClippedValueLoss

pytestmark = pytest.mark.slow

ROWS, MINIBATCHES, LONGEST = 12, 2, 20
TEMPERATURE, KL_COEF = 0.8, 0.1
# With an epsilon this large AdamW's step follows the gradient: one that is rounded otherwise moves no weight by the whole rate.
OPTIMIZER = OptimizerConfig(lr=0.02, eps=1.0, max_grad_norm=1e6, schedule="constant", warmup_steps=0)
TOLERANCE = 2.5e-7
"""Largest difference of any weight: two units in the last place of the largest ones, about 1."""
LEAST_CHANGE = 5e-3
"""What the step changes the weight by that it changes most."""

AGGREGATIONS = ("token_mean", "sequence_mean", "constant")
LOSSES = (*AGGREGATIONS, "value")
ORDERS = {"as it came": range(ROWS), "shuffled": [4, 1, 5, 0, 3, 2, 8, 11, 6, 10, 7, 9]}  # within each minibatch
CUTS = (  # ranks, tokens of a micro-batch, order of the rows
    (1, 1, "as it came"),  # every row a micro-batch
    (1, 70, "as it came"),
    (1, 10_000, "as it came"),  # a minibatch in one
    (1, 70, "shuffled"),
    (1, 10_000, "shuffled"),
    (2, 1, "as it came"),
    (2, 70, "as it came"),
    (2, 10_000, "as it came"),
    (2, 70, "shuffled"),
)
Weights = dict[str, Tensor]


def algorithm(loss: str) -> AlgorithmConfig:
    """Everything that a policy loss may have, at once."""
    return AlgorithmConfig(
        minibatches=MINIBATCHES,
        loss_aggregation=loss if loss != "value" else "token_mean",
        kl_in="loss",
        kl_estimator="k3",
        entropy_coef=0.02,
        clip_eps_high=0.3,
        dual_clip=1.5,
        rollout_correction="truncated",
        rollout_correction_cap=1.2,
        drop_truncated=True,
    )


def learned(learner: Learner, start: str, table: pa.Table, loss: str, cut: tuple[int, int, str], rank: int) -> Weights:
    """Full weights, on rank 0, after a step of two minibatches from the weights in `start`."""
    ranks, tokens, order = cut
    learner.load(start)
    weighed = add_weights(table.take(list(ORDERS[order])), algorithm(loss), LONGEST)
    plans = minibatch_plans(lengths(weighed, "prompt", "response").tolist(), MINIBATCHES, ranks, tokens)
    chosen = ClippedValueLoss(0.5) if loss == "value" else ClippedPolicyLoss(algorithm(loss), KL_COEF)
    learner.update(weighed, [Update(plan[rank]) for plan in plans], chosen)
    return learner.zero.full_state()


def after_every_cut(rank: int, ranks: int, folder: str) -> dict[str, Weights]:
    """By loss and cut, the weights after a step of the rows in `folder`; one call a torch.distributed world."""
    import pyarrow.parquet as pq

    table = pq.read_table(f"{folder}/rows.parquet")
    policy, critic = Policy(threads=1), Critic(threads=1)
    policy.setup(TrainedRoleConfig(model=f"{folder}/policy", optimizer=OPTIMIZER), 2, TEMPERATURE, "float32")
    critic.setup(TrainedRoleConfig(model=f"{folder}/critic", optimizer=OPTIMIZER), 2)
    found = {}
    for learner, losses in ((policy, AGGREGATIONS), (critic, ("value",))):
        start = f"{folder}/start-{ranks}-{losses[0]}"
        learner.save(start)
        for loss in losses:
            for cut in CUTS:
                if cut[0] == ranks:
                    found[f"{loss} {cut}"] = learned(learner, start, table, loss, cut, rank)
        learner.zero.engine.destroy()
    return found


def plain_logprobs(model: Any, row: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Log-probability of each response token, and the entropy in its place, (A,) each; the row is padded on its right."""
    tokens = row["prompt"] + row["response"]
    padding = 7
    ids = torch.tensor([tokens + [0] * padding])
    mask = torch.tensor([[1] * len(tokens) + [0] * padding])
    logits = model(input_ids=ids, attention_mask=mask).logits[0, len(row["prompt"]) - 1 : len(tokens) - 1]
    everything = (logits / TEMPERATURE).log_softmax(-1)
    chosen = everything.gather(1, torch.tensor(row["response"])[:, None]).squeeze(1)
    return chosen, -(everything.exp() * everything).sum(-1)


def plain_values(model: Any, row: dict[str, Any]) -> Tensor:
    """The value before each response token, (A,)."""
    ids = torch.tensor([row["prompt"] + row["response"]])
    hidden = model.base_model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    return model.score(hidden)[0, len(row["prompt"]) - 1 : -1, 0]


def policy_terms(model: Any, row: dict[str, Any]) -> Tensor:
    """The loss of each response token: Schulman et al. 2017, eq. 7, and what `algorithm` adds to it."""
    names = ("logprobs", "rollout_logprobs", "ref_logprobs", "advantages")
    before, engine, reference, advantages = (torch.tensor(row[name]) for name in names)
    logprobs, entropy = plain_logprobs(model, row)
    ratio = (logprobs - before).exp()
    surrogate = torch.min(ratio * advantages, ratio.clamp(0.8, 1.3) * advantages)
    surrogate = torch.where(advantages < 0, torch.max(surrogate, 1.5 * advantages), surrogate)
    importance = (before - engine).exp().clamp(max=1.2)
    away = reference - logprobs
    k3 = away.exp() - 1 - away  # Schulman 2020, "Approximating KL divergence"
    return -importance * surrogate + KL_COEF * k3 - 0.02 * entropy


def value_terms(model: Any, row: dict[str, Any]) -> Tensor:
    values, old, returns = plain_values(model, row), torch.tensor(row["values"]), torch.tensor(row["returns"])
    clipped = old + (values - old).clamp(-0.5, 0.5)
    return 0.5 * torch.max((values - returns) ** 2, (clipped - returns) ** 2)


def plain_update(model: Any, rows: list[dict[str, Any]], loss: str) -> Weights:
    """Weights after the same step by torch.optim.AdamW on the loss of whole minibatches, a row at a time."""
    adamw = torch.optim.AdamW(
        model.parameters(), lr=OPTIMIZER.lr, betas=OPTIMIZER.betas, eps=OPTIMIZER.eps, weight_decay=0.0
    )
    size = ROWS // MINIBATCHES
    for minibatch in (rows[:size], rows[size:]):
        terms = [(value_terms if loss == "value" else policy_terms)(model, row) for row in minibatch if row["finished"]]
        every = torch.cat(terms)
        total = {
            "token_mean": every.mean(),
            "value": every.mean(),
            "sequence_mean": torch.stack([of_row.mean() for of_row in terms]).mean(),
            "constant": every.sum() / (len(terms) * LONGEST),
        }[loss]
        adamw.zero_grad()
        total.backward()
        adamw.step()
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@pytest.fixture(scope="module")
def folder(make_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`policy`, `critic`, and `rows.parquet`: rows as the driver has them before it learns, near what the models say."""
    folder = tmp_path_factory.mktemp("invariance")
    (folder / "policy").symlink_to(make_model("invariant-policy", seed=3, num_key_value_heads=1))
    (folder / "critic").symlink_to(make_model("invariant-critic", seed=4, reward=True))
    policy = AutoModelForCausalLM.from_pretrained(folder / "policy", attn_implementation="eager")
    critic = AutoModelForSequenceClassification.from_pretrained(folder / "critic", attn_implementation="eager")
    random, rows = np.random.default_rng(5), []
    for number in range(ROWS):
        prompt, response = (random.integers(5, 280, random.integers(*bounds)) for bounds in ((3, 25), (2, LONGEST)))
        row: dict[str, Any] = {"prompt": prompt.tolist(), "response": response.tolist(), "finished": number % 5 != 3}
        with torch.no_grad():
            known, values = plain_logprobs(policy, row)[0].numpy(), plain_values(critic, row).numpy()

        def near(center: Any, spread: float, tokens: int = len(response)) -> list[float]:
            return (center + spread * random.standard_normal(tokens)).astype(np.float32).tolist()

        row |= {"logprobs": near(known, 0.3), "rollout_logprobs": near(known, 0.3), "ref_logprobs": near(known, 0.5)}
        row |= {"advantages": near(0.0, 1.0), "values": near(values, 0.5), "returns": near(values, 1.0)}
        rows.append(row)
    ids, floats = pa.list_(pa.int32()), pa.list_(pa.float32())
    types = {"prompt": ids, "response": ids, "finished": pa.bool_()}
    schema = pa.schema([(name, types.get(name, floats)) for name in rows[0]])
    write_table(pa.Table.from_pylist(rows, schema), folder / "rows.parquet")
    return folder


@pytest.fixture(scope="module")
def cuts(folder: Path, world: None) -> dict[str, Weights]:
    two = on_ranks(2, __file__, "after_every_cut", folder, folder)
    return after_every_cut(0, 1, str(folder)) | two


@pytest.fixture(scope="module")
def oracles(folder: Path) -> dict[str, tuple[Weights, Weights]]:
    """By loss, the weights before and after."""
    import pyarrow.parquet as pq

    rows = pq.read_table(folder / "rows.parquet").to_pylist()
    found = {}
    for loss in LOSSES:
        kind, name = (
            (AutoModelForSequenceClassification, "critic") if loss == "value" else (AutoModelForCausalLM, "policy")
        )
        model = kind.from_pretrained(folder / name, attn_implementation="eager")
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        found[loss] = before, plain_update(model, rows, loss)
    return found


def largest_difference(one: Weights, other: Weights) -> float:
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


@pytest.mark.parametrize("cut", CUTS, ids=lambda cut: f"{cut[0]}-ranks-of-{cut[1]}-tokens-{cut[2].replace(' ', '-')}")
@pytest.mark.parametrize("loss", LOSSES)
def test_every_cut_gives_the_update_of_plain_torch(
    loss: str, cut: tuple[int, int, str], cuts: dict[str, Weights], oracles: dict[str, tuple[Weights, Weights]]
) -> None:
    before, after = oracles[loss]
    assert largest_difference(before, after) > LEAST_CHANGE
    assert largest_difference(cuts[f"{loss} {cut}"], after) <= TOLERANCE


def test_an_aggregation_would_be_told_from_another(oracles: dict[str, tuple[Weights, Weights]]) -> None:
    for one, other in (AGGREGATIONS[:2], AGGREGATIONS[1:], AGGREGATIONS[::2]):
        assert largest_difference(oracles[one][1], oracles[other][1]) > 1000 * TOLERANCE
