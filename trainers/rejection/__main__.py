"""python -m trainers.rejection: rejection-sampling fine-tuning, on the best of N sampled responses per prompt.

    python -m trainers.rejection --config configs/laptop.yaml [--a.b=value ...]

    runs/NAME/journal/          the samples of every step with their rewards, on disk before anything uses them
    runs/NAME/round-R/          chosen.parquet (an SFT table), report.json, sft/ (a run of trainers.sft), replay.parquet
    runs/NAME/model             the last round's model

A step generates, scores, and records the responses to `prompts_per_step` prompts. A round consists of as many steps as
its prompts need, a selection, and a fine-tuning. Engines, reward model, and reward functions run only during the
sampling steps of a round, so that the fine-tuning can use their resources. Every part ends by writing a file, so
repeating the command continues after the last finished part.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
import time
from collections.abc import Sequence

import pyarrow as pa

from actors.groups.role_groups import RoleGroupsConfig
from actors.groups.sampler import Sampler
from actors.model_folder.compatibility import require_same_format
from actors.model_folder.folders import ModelFolder
from actors.modeling.rows import lengths
from actors.roles.reward_function import sources_of
from actors.roles.worker import RunContext
from actors.table import reward_sources
from cluster.connect import connect
from configs.base import load
from configs.errors import ConfigError, one_line_errors
from configs.logs import configure, logging_context
from configs.program import program
from data.tables import SFT, DataError, column_values, write_table
from trainers.config.rejection import RejectionConfig
from trainers.config.stages import STAGES
from trainers.preflight.verdict import require_fit, require_machine
from trainers.rejection.rounds import Round, sft_config
from trainers.rejection.selection import chat_with, choose, report, verdicts
from trainers.reporting.ending import ending
from trainers.rlhf.journal import Journal, fingerprint
from trainers.rlhf.prompts import PromptStream
from trainers.rlhf.rewards import add_reward
from trainers.runs.export import export_model, load_chat_tokenizer, require_model
from trainers.runs.folder import Run, already_finished, write_atomically
from trainers.runs.pinning import fetch_on_nodes, pin
from trainers.runs.restart import starting_again
from trainers.runs.stopping import StopRequests
from trainers.supervised import driver
from trainers.supervised.tasks.sft import SftStage

logger = logging.getLogger(__name__)

PROG = program("trainers.rejection")
NEEDED = ["prompt_id", "sample", "response", "finished", "reward"]  # columns of the journal that the selection reads
TASK = "rejection"  # value of the column `task` in chosen.parquet


def train(config: RejectionConfig, run: Run, prompts: PromptStream) -> None:
    """Runs all unfinished rounds, then exports the last round's model."""
    rounds = [Round(config, run.path, number) for number in range(config.rounds)]
    for one in rounds:
        if not one.chosen.exists():
            with StopRequests() as stop, stop.may_interrupt():  # finished steps are in the journal
                samples = sample(one, run, prompts)
            select(one, prompts, samples)
        tuning = one.fine_tuning()
        with logging_context(tuning.recipe_key, tuning.name):
            if not already_finished(tuning.name, tuning):
                driver.train(SftStage(tuning))
    last = rounds[-1]
    export_model(
        run.path / "model", prompts.tokenizer, lambda aside: shutil.copytree(last.model, aside, dirs_exist_ok=True)
    )
    run.finish({"rounds": len(rounds), **json.loads(last.report.read_text(encoding="utf-8"))})


def sample(one: Round, run: Run, prompts: PromptStream) -> pa.Table:
    """Returns the round's samples with their rewards. Steps that are in the journal are not generated again."""
    config, number, journal = one.config, one.number, Journal(run.path, fingerprint(one.config))
    per_round = config.prompts_per_round or len(prompts)
    count = -(-per_round // config.prompts_per_step)
    steps = range(number * count, (number + 1) * count)
    # After a crash, a step may be in the journal but not in the metrics.
    logged = {line["step"] for line in run.metrics()}
    found: dict[int, pa.Table] = {}
    for step in steps:
        table = journal.recall(step, number)
        if table is not None:
            found[step] = table.select(NEEDED)
            if step + 1 not in logged:
                run.log(step + 1, step_metrics(table, number))
    missing = [step for step in steps if step not in found]
    if not missing:
        return pa.concat_tables(found[step] for step in steps)

    def batch(step: int) -> pa.Table:
        done = (step - steps.start) * config.prompts_per_step
        return prompts.rows(number * per_round + done, min(config.prompts_per_step, per_round - done))

    logger.info("round %d: %d prompts x %d samples by %s", number, per_round, config.samples_per_prompt, one.policy)
    with (
        Sampler(role_groups_config(config, one.policy, prompts.end_ids), number, prompts.samples) as sampler,
        run.progress(config.rounds * count, missing[0], ("reward", "truncated")) as progress,
    ):
        began = time.monotonic()
        for step, answered in zip(missing, sampler.samples(map(batch, missing)), strict=True):
            table = add_reward(answered, config.reward_weights)
            found[step] = journal.record(step, number, table).select(NEEDED)
            began, seconds = time.monotonic(), time.monotonic() - began
            tokens = int(lengths(table, "response").sum())
            metrics = step_metrics(table, number) | {"seconds": seconds, "tokens_per_second": tokens / seconds}
            run.log(step + 1, metrics)
            progress.update(step + 1, metrics)
    return pa.concat_tables(found[step] for step in steps)


def select(one: Round, prompts: PromptStream, samples: pa.Table) -> None:
    """Selects the round's responses. Writes report and replay rows, then chosen.parquet, which marks completion.

    Raises:
        RunError: no response can be selected, or a reward is not finite.
    """
    rows = zip(*(samples.column(name).to_pylist() for name in ("prompt_id", "response", "finished")), strict=True)
    chats = [
        chat_with(prompts.messages[prompt], response, prompts.tokenizer) if finished else None
        for prompt, response, finished in rows
    ]
    outcomes = verdicts(samples, [chat is not None for chat in chats], one.config.selection.min_reward)
    chosen = choose(samples, outcomes, one.config.selection)
    metrics = report(samples, outcomes, chosen)
    one.folder.mkdir(exist_ok=True)
    if one.config.replay:
        mixed_in = one.draw_replay(len(chosen))
        metrics["replay"] = len(mixed_in)
        write_table(mixed_in, one.replay)
    write_atomically(one.report, json.dumps({"round": one.number, **metrics}, indent=1) + "\n")
    write_table(
        pa.Table.from_pylist([{"messages": chats[row], "task": TASK} for row in chosen], SFT),
        one.chosen,
    )
    logger.info(
        "round %d: selected %d of %d responses, mean reward %.3f (of all: %.3f); %d were truncated",
        one.number,
        *(metrics[name] for name in ("chosen", "samples", "chosen_reward", "reward", "truncated")),
    )


def step_metrics(table: pa.Table, number: int) -> dict[str, float]:
    """Returns the metrics of a step's samples, including the means of `reward` and of each source's `reward_NAME`."""
    rewards = [name for name in ("reward", *reward_sources(table)) if name in table.column_names]
    return {
        "round": number,
        **{name: pa.compute.mean(table.column(name)).as_py() for name in rewards},
        "truncated": 1 - sum(column_values(table, "finished")) / len(table),
        "response_tokens": float(lengths(table, "response").mean()),
    }


def role_groups_config(config: RejectionConfig, model: str, end_ids: tuple[int, ...]) -> RoleGroupsConfig:
    """Returns the part of the stage's settings that the roles need; `model` generates the samples."""
    return RoleGroupsConfig(
        run=config.name,
        context=RunContext(config.roles, model, config.seed, end_ids),
        placement_groups=config.placement_groups,
        start_timeout_s=config.cluster.start_timeout_s,
        call_timeout_s=config.cluster.collective_timeout_s,
        hang_timeout_s=config.cluster.hang_timeout_s,
    )


def read_inputs(config: RejectionConfig) -> PromptStream:
    """Checks all inputs, including those that only later rounds read, and returns the prompts.

    Raises:
        ConfigError: a folder has no valid model, vocabularies or chat formats differ, or a round has too little data.
        DataError: a table cannot be read or encoded.
    """
    longest = config.prompts.max_tokens + config.rollout.max_new_tokens
    field = "prompts.max_tokens + rollout.max_new_tokens ="
    require_model(config.model, longest, field)
    tokenizer = load_chat_tokenizer(config.model, config.chat)
    if config.reward is not None:
        require_model(config.reward.model, longest, field, "reward.model", "scorer")
        scorer = ModelFolder(config.reward.model, "reward.model")
        require_same_format(config.model, tokenizer, scorer.path, scorer.tokenizer)
    sources_of(config.reward_function)  # checks the reward functions before anything starts
    tables = config.replay or config.sft.data.heldout
    try:
        SftStage(sft_config(config, config.name, config.model, tables)).examples()
    except DataError as error:
        raise DataError(f"fine-tuning, with replay as data.train: {error}") from error
    prompts = PromptStream(config, tokenizer)
    prompts.require_trainable()
    most = (config.selection.k or config.prompts_per_round or len(prompts)) / (1 - config.replay_share)
    if config.sft.epochs * most < config.sft.batch_size:
        raise ConfigError(
            f"a round trains on at most {most:g} rows, which with sft.epochs {config.sft.epochs:g} is less "
            f"than one sft.batch_size {config.sft.batch_size}; lower sft.batch_size or select more responses"
        )
    if (config.prompts_per_round or 0) > len(prompts):
        raise ConfigError(
            f"prompts_per_round {config.prompts_per_round} is more than the {len(prompts)} prompts of "
            "prompts.train; lower it, or remove it to use all prompts"
        )
    return prompts


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the settings, connects to the cluster, opens the run, and trains."""
    config = load("rejection", STAGES, sys.argv[1:] if argv is None else argv, PROG)
    assert isinstance(config, RejectionConfig)
    configure("rejection", config.name)
    with one_line_errors(PROG):
        config = pin(config)
        if already_finished(config.name, config):
            return
        require_machine(config)
        prompts = read_inputs(config)
        with connect(**config.cluster.connection()):
            require_fit(config)
            fetch_on_nodes(config)
            with Run(config.name, config) as run, run.shown():
                starting_again(config.max_failures, lambda: train(config, run, prompts))
                print(ending(run), flush=True)


if __name__ == "__main__":
    main()
