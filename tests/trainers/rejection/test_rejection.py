"""Rejection sampling on real roles: two rounds of a model of a few thousand parameters, on Ray, vLLM and ZeRO-3."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from ray.util import placement_group_table

from actors.groups.sampler import Sampler
from actors.modeling.models import load_scorer
from cluster.waiting import RoleDied
from configs.base import dump, read
from data.chat import encode_chat
from data.tables import PROMPTS, SFT, read_table, write_table
from trainers.config.rejection import RejectionConfig
from trainers.config.stages import STAGES
from trainers.rejection.__main__ import main, read_inputs, role_groups_config
from trainers.rlhf.journal import Journal, fingerprint
from trainers.runs.export import export_model, load_tokenizer
from trainers.runs.folder import Run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def models(clinic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `policy`, which has learned to answer and to end, and `scorer`, which has opinions without reasons."""
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("rejection")
    tokenizer = load_tokenizer(clinic / "model")
    policy = AutoModelForCausalLM.from_pretrained(clinic / "model")
    encoded = [
        encode_chat(tokenizer, chat) for chat in read_table(clinic / "sft.train.parquet", SFT)["messages"].to_pylist()
    ]
    width = max(len(ids) for ids, _ in encoded)
    ids = torch.tensor([tokens + [0] * (width - len(tokens)) for tokens, _ in encoded])
    mask = torch.tensor([learned + [0] * (width - len(learned)) for _, learned in encoded])
    optimizer = torch.optim.AdamW(policy.parameters(), lr=5e-3)
    for _ in range(60):
        policy(input_ids=ids, labels=ids.where(mask == 1, -100)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    export_model(folder / "policy", tokenizer, policy.save_pretrained)
    scorer = load_scorer(str(clinic / "model"), torch.float32)
    torch.nn.init.normal_(scorer.get_submodule("score").weight, generator=torch.Generator().manual_seed(3))
    export_model(folder / "scorer", tokenizer, scorer.save_pretrained)
    rows = [{"prompt": [{"role": "user", "content": f"病人{n}头痛怎么办"}]} for n in range(20)]
    write_table(pa.Table.from_pylist(rows, PROMPTS), folder / "prompts.parquet")
    return folder


@pytest.fixture
def recipe(clinic: Path, models: Path, tmp_path: Path) -> Any:
    """Writes a recipe of two rounds of 12 prompts, in steps of 8; keyword arguments change that. Returns arguments."""
    placement = {"cpus_per_rank": 0.1, "threads": 1}

    def write(**changes: Any) -> list[str]:
        values: dict[str, Any] = {
            "name": "rejection",
            "model": str(models / "policy"),
            "prompts": {"train": [str(models / "prompts.parquet")], "max_tokens": 64},
            "rounds": 2,
            "prompts_per_round": 12,
            "prompts_per_step": 8,
            "samples_per_prompt": 4,
            "rollout": {
                "placement": placement,
                "max_new_tokens": 32,
                "engine": {"max_model_len": 512, "kv_cache_bytes": 2**26},
            },
            "reward": {"model": str(models / "scorer"), "placement": placement},
            "sft": {
                "data": {"heldout": [str(clinic / "sft.heldout.parquet")], "max_tokens": 512},
                "placement": placement,
                "optimizer": {"lr": 1e-3},
                "batch_size": 2,
            },
            **changes,
        }
        dump(RejectionConfig.model_validate_json(json.dumps(values)), tmp_path / "recipe.yaml")
        return ["--config", str(tmp_path / "recipe.yaml")]

    return write


@pytest.fixture
def reward_function(tmp_path: Path) -> dict[str, Any]:
    """The settings of a reward function that prefers short responses."""
    (tmp_path / "short.py").write_text("def reward(sample):\n    return len(sample['response'])\n")
    return {"functions": {"short": {"file": str(tmp_path / "short.py"), "weight": -0.5}}}


def text_of(answer: list[int], tokenizer: Any) -> str:
    text: str = tokenizer.decode(answer).removesuffix("</s>")
    return text


def weights(model: Path) -> dict[str, torch.Tensor]:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model).state_dict()


@pytest.mark.long
def test_two_rounds_choose_what_scores_best_and_learn_it(
    clinic: Path, models: Path, recipe: Any, runs: Path, ray_cluster: Any, trains_here: None, capsys: Any
) -> None:
    arguments = recipe(replay=[str(clinic / "sft.train.parquet")], replay_share=0.25)
    config = read("rejection", STAGES, arguments)
    assert isinstance(config, RejectionConfig)
    main(arguments)
    run = runs / "rejection"
    assert capsys.readouterr().out.endswith(f"rejection: done, {run / 'model'}\n")
    tokenizer, journal = load_tokenizer(run / "model"), Journal(run, fingerprint(config))
    seeds = []
    for number in range(2):
        steps = [journal.recall(step, number) for step in (2 * number, 2 * number + 1)]
        samples = pa.concat_tables([step for step in steps if step is not None])
        assert [len(step) for step in steps if step is not None] == [32, 16]
        seeds += samples.column("seed").to_pylist()
        report = json.loads((run / f"round-{number}" / "report.json").read_text())
        assert report["reward"] == pytest.approx(sum(samples.column("reward").to_pylist()) / 48)
        assert report["chosen_reward"] > report["reward"]
        assert report["truncated"] == samples.column("finished").to_pylist().count(False)
        best: dict[int, tuple[float, str]] = {}
        for row in samples.to_pylist():
            text = text_of(row["response"], tokenizer)
            if row["finished"] and text.strip() and "\ufffd" not in text and "[" not in text:
                old = best.get(row["prompt_id"], (-float("inf"), ""))
                best[row["prompt_id"]] = max(old, (row["reward"], text), key=lambda answer: answer[0])
        chosen = read_table(run / f"round-{number}" / "chosen.parquet", SFT)
        prompts = read_table(models / "prompts.parquet", PROMPTS).column("prompt").to_pylist()
        learned = {chat[0]["content"]: chat[-1]["content"] for chat in chosen.column("messages").to_pylist()}
        assert learned == {prompts[prompt][0]["content"]: text for prompt, (_, text) in best.items()}
        assert report["chosen"] == len(chosen) >= 6
        assert report["replay"] == round(len(chosen) / 3)
        assert (run / f"round-{number}" / "sft" / "DONE").exists()
    assert len(set(seeds)) == len(seeds) == 96
    model = weights(run / "model")
    last, start = weights(run / "round-1" / "sft" / "model"), weights(models / "policy")
    assert all(torch.equal(tensor, last[name]) for name, tensor in model.items())
    assert not all(torch.equal(tensor, start[name]) for name, tensor in model.items())
    main(arguments)
    assert "rejection runs/rejection: " in (said := capsys.readouterr().err)
    assert "is finished; nothing to do" in said


@pytest.mark.long
def test_roles_that_share_sample_what_roles_apart_sample(
    recipe: Any, reward_function: dict[str, Any], models: Path, ray_cluster: Any
) -> None:
    found, reserved = [], []
    for colocate in ("none", "all"):
        config = read(
            "rejection",
            STAGES,
            [*recipe(reward_function=reward_function), f"--name=placed-{colocate}", f"--colocate={colocate}"],
        )
        assert isinstance(config, RejectionConfig)
        prompts = read_inputs(config)
        with Sampler(role_groups_config(config, str(models / "policy"), (2,)), 0, prompts.samples) as sampler:
            groups = [
                group for group in placement_group_table().values() if group["name"].startswith(f"{config.name}/")
            ]
            reserved.append({group["name"].removeprefix(f"{config.name}/"): group["bundles"] for group in groups})
            batches = [prompts.rows(0, 4), prompts.rows(4, 4)]
            found.append(pa.concat_tables(sampler.samples(batches)))
    assert reserved == [
        {"rollout": {0: {"CPU": 0.1}}, "reward": {0: {"CPU": 0.1}}, "reward_function": {0: {"CPU": 0.25}}},
        {"rollout+reward+reward_function": {0: {"CPU": 0.25}}},
    ]
    assert len(found[0]) == 32
    answers = [sample["response"] for sample in prompts.samples(found[0])]
    assert found[0]["reward_short"].to_pylist() == [len(answer) for answer in answers]
    assert len(set(found[0]["reward_model"].to_pylist())) > 16
    assert found[0].equals(found[1])


class Died(BaseException):
    """Stands for the end of the driver: nothing handles it."""


@pytest.mark.long
def test_nothing_is_generated_twice_when_roles_or_driver_die(
    recipe: Any, reward_function: dict[str, Any], runs: Path, ray_cluster: Any, capsys: Any
) -> None:
    arguments = recipe(rounds=1, reward=None, reward_function=reward_function)
    config = read("rejection", STAGES, arguments)
    assert isinstance(config, RejectionConfig)
    generate, log = Sampler.samples, Run.log
    asked: list[int] = []

    def die_after_one_step(sampler: Sampler, batches: Iterable[pa.Table]) -> Iterator[pa.Table]:
        pending = list(batches)
        asked.append(len(pending))
        for index, table in enumerate(generate(sampler, pending)):
            if len(asked) == 1 and index == 1:
                raise RoleDied("rollout: generate: its process died")
            yield table

    def die_at_step_2(run: Run, step: int, metrics: dict[str, float]) -> None:
        if run.name == "rejection" and step == 2:
            raise Died
        log(run, step, metrics)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sampler, "samples", die_after_one_step)
        patch.setattr(Run, "log", die_at_step_2)
        with pytest.raises(Died):
            main(arguments)
    assert asked == [2, 1]
    said = r"WARNING rejection runs/rejection: rollout: .* died; restarting the roles \(failure 1 of at most 3\)"
    assert re.search(said, capsys.readouterr().err)
    assert not (runs / "rejection" / "round-0").exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sampler, "__init__", lambda *_: pytest.fail("the journal has every sample"))
        main(arguments)
    lines = [json.loads(line) for line in (runs / "rejection" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert [line["reward"] for line in lines] == [-0.5 * line["reward_short"] for line in lines]
    assert json.loads((runs / "rejection" / "DONE").read_text())["samples"] == 48
    samples = [Journal(runs / "rejection", fingerprint(config)).recall(step, 0) for step in (0, 1)]
    shortest: dict[int, int] = {}
    for row in (row for table in samples if table is not None for row in table.to_pylist() if row["finished"]):
        shortest[row["prompt_id"]] = min(int(row["reward_short"]), shortest.get(row["prompt_id"], 99))
    chosen = read_table(runs / "rejection" / "round-0" / "chosen.parquet", SFT)["messages"].to_pylist()
    assert sorted(len(chat[-1]["content"]) for chat in chosen) == sorted(filter(None, shortest.values()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--model=/nowhere/model", "/nowhere/model"),
        ("--reward.model=POLICY", "reward.model: .* has no scalar head; name one that trainers.reward made"),
        ("--prompts_per_round=21", "prompts_per_round 21 is more than the 20 prompts"),
        ("--sft.batch_size=64", "a round trains on at most 12 rows, .* less than one sft.batch_size 64"),
        ("--sft.data.heldout=[/nowhere.parquet]", "/nowhere.parquet: no such file"),
        (
            "--sft.placement.cpus_per_rank=100",
            "fine-tuning: needs 100 CPU but the Ray cluster has 8 in all; .* --sft.placement.cpus_per_rank=7",
        ),
        ("--reward.placement.cpus_per_rank=100", "sampling: needs 100.1 CPU .* --reward.placement.cpus_per_rank=7"),
        (
            "--reward=null",
            "no source of reward is set: set reward.model, reward_function.functions, or reward_function.endpoints",
        ),
        ("--reward_function.functions.f.file=/nowhere.py", "reward .f.: there is no file /nowhere.py"),
        ("--selection.kk=1", "did you mean 'k'"),
        (
            "--colocate=[[rollout,policy]]",
            "colocate names 'policy', which is no role .* they start rollout, reward$",
        ),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_made(
    change: str, message: str, recipe: Any, models: Path, runs: Path, ray_cluster: Any, capsys: Any
) -> None:
    with pytest.raises(SystemExit) as end:
        main([*recipe(), change.replace("POLICY", str(models / "policy"))])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert error.count("\n") == 1
    assert not runs.exists()
