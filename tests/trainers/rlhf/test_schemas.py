"""The columns of the table at each point of a step: those that the settings need, and no others."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from actors.table import TableError, require_schema
from configs.base import read
from trainers.config.rlhf import PPOConfig
from trainers.config.stages import STAGES
from trainers.rlhf.losses import losses
from trainers.rlhf.schemas import Schemas

PROMPTS = {"prompt_id", "group", "sample", "seed", "prompt"}
SAMPLED = PROMPTS | {"response", "rollout_logprobs", "finished"}
DRIVER = {"reward", "score", "weights", "advantages"}
VARIANTS = {
    (): (set(), {"reward_model", "ref_logprobs", "values", "logprobs"}, {"returns"}),
    ("--algorithm.kl_coef=0",): (set(), {"reward_model", "values", "logprobs"}, {"returns"}),
    ("--algorithm.name=rloo", "--samples_per_prompt=2"): (set(), {"reward_model", "ref_logprobs", "logprobs"}, set()),
    ("--algorithm.name=grpo", "--samples_per_prompt=2", "--algorithm.kl_in=loss", "--algorithm.minibatches=1", "--algorithm.epochs=1"): (
        set(), {"reward_model", "ref_logprobs"}, set(),
    ),
    ("--algorithm.name=grpo", "--samples_per_prompt=2", "--algorithm.dynamic_sampling=1"): (
        {"reward_model"}, {"ref_logprobs", "logprobs"}, set(),
    ),
    ("--rollout.in_flight=keep", "--rollout.ahead=1", "--algorithm.rollout_correction=truncated"): (
        {"versions"}, {"reward_model", "ref_logprobs", "values", "logprobs"}, {"returns"},
    ),
}  # fmt: skip


def config(folder: Path, *flags: str) -> PPOConfig:
    (folder / "prompts.jsonl").write_text("{}")
    found = read("ppo", STAGES, [f"--prompts.train=[{folder}/prompts.jsonl]", *flags])
    assert isinstance(found, PPOConfig)
    return found


@pytest.mark.parametrize("flags", VARIANTS)
def test_each_point_has_what_the_settings_need(flags: tuple[str, ...], tmp_path: Path) -> None:
    sampled, computed, driver = VARIANTS[flags]
    chosen = config(tmp_path, *flags)
    schemas = Schemas.of(chosen)
    assert set(schemas.prompts.names) == PROMPTS
    assert set(schemas.responses.names) == SAMPLED | sampled
    assert set(schemas.scored.names) == SAMPLED | sampled | computed
    assert set(schemas.trainable.names) == SAMPLED | sampled | computed | DRIVER | driver
    for loss in losses(chosen, chosen.critic_warmup_steps, kl_coef=chosen.algorithm.kl_coef).values():
        assert set(loss.columns) <= set(schemas.trainable.names)


def test_a_table_of_other_columns_is_refused_by_name(tmp_path: Path) -> None:
    schema = Schemas.of(config(tmp_path)).prompts
    table = schema.empty_table()
    assert require_schema(table.select(schema.names[::-1]), schema, "prompts").num_columns == 5
    with pytest.raises(TableError, match=r"^the table of prompts needs the column seed, which prompts adds$"):
        require_schema(table.drop_columns("seed"), schema, "prompts")
    with pytest.raises(TableError, match=r"^mood: the table of prompts has no such column with these settings$"):
        require_schema(table.append_column("mood", pa.array([], pa.int32())), schema, "prompts")
    other = table.set_column(3, "seed", pa.array([], pa.int32()))
    with pytest.raises(TableError, match=r"^seed: has the type int32, not int64$"):
        require_schema(other, schema, "prompts")
