"""What stages need, and that a run which cannot work ends before it has taken anything."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from actors.config import LoraConfig
from actors.sizing.memory import GPU_CONTEXT, lora_parameters
from actors.sizing.shape import Shape
from cluster.preflight.capacity import parse_nodes
from cluster.preflight.needs import Finding
from configs.base import REPOSITORY, dump, read
from configs.errors import ConfigError
from configs.recipe import read_recipe
from trainers.config.stages import STAGES
from trainers.config.supervised import SftConfig
from trainers.preflight.fitting import changed_by, nearest
from trainers.preflight.inputs import inputs
from trainers.preflight.needs import findings, plan
from trainers.preflight.verdict import refuse, require_machine

THIRTEEN = Shape(hidden=5120, layers=40, intermediate=13824, heads=40, vocab=39424)
SMALL = Shape(hidden=64, layers=2, intermediate=128, heads=2, vocab=300)


def recipe(stage: str, *changes: str, name: str = "configs/laptop.yaml") -> Any:
    return read(stage, STAGES, ["--config", name, *changes])


RECIPES = {
    "laptop": ("2CPU,8GiB", Shape(hidden=256, layers=4, intermediate=688, heads=4, vocab=3584, tied=1)),
    "qwen2.5-0.5b-cpu": (
        "2CPU,24GiB",
        Shape(hidden=896, layers=24, intermediate=4864, heads=14, kv_heads=2, vocab=151_936, qkv_bias=1, tied=1),
    ),
    "qwen2.5-1.5b-1x24gb": (
        "1x8CPU,1GPU,64GiB,L4",
        Shape(hidden=1536, layers=28, intermediate=8960, heads=12, kv_heads=2, vocab=151_936, qkv_bias=1, tied=1),
    ),
    "qwen2.5-1.5b-ppo-1x80gb": (
        "1x16CPU,1GPU,192GiB,H100",
        Shape(hidden=1536, layers=28, intermediate=8960, heads=12, kv_heads=2, vocab=151_936, qkv_bias=1, tied=1),
    ),
    "qwen2.5-7b-1x80gb": (
        "1x16CPU,1GPU,256GiB,H100",
        Shape(hidden=3584, layers=28, intermediate=18_944, heads=28, kv_heads=4, vocab=152_064, qkv_bias=1),
    ),
    "qwen2.5-7b-8xh100": (
        "1x64CPU,8GPU,1000GiB,H100",
        Shape(hidden=3584, layers=28, intermediate=18_944, heads=28, kv_heads=4, vocab=152_064, qkv_bias=1),
    ),
    "ziya2-13b-16xh100": ("2x64CPU,8GPU,1000GiB,H100", THIRTEEN),
}
"""Every recipe of configs/ with the machines that it is for and its model."""


def test_all_recipes_are_known() -> None:
    assert {path.stem for path in (REPOSITORY / "configs").glob("*.yaml")} == set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_fit_their_machines_and_no_smaller_ones(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainers.preflight.needs.tokenizer_dir", Path)
    monkeypatch.setattr("trainers.preflight.needs.vocabulary", lambda _: 3584)
    file, (nodes, shape) = f"configs/{name}.yaml", RECIPES[name]
    stages = [stage for stage in STAGES if stage in read_recipe(REPOSITORY / file, file).values]
    assert stages
    for stage in stages:
        config = recipe(stage, name=file)
        refused = [
            {
                finding.subject
                for finding in findings(config, parse_nodes(text), lambda _: shape)
                if finding.level == "refused"
            }
            for text in (nodes, "1CPU,8GPU,0.5GiB,T4")
        ]
        assert refused[0] <= {"disk"}  # this machine's
        assert refused[1] - {"disk"}


def test_every_role_is_there_with_its_ranks() -> None:
    wanted = plan(recipe("ppo", name="configs/ziya2-13b-16xh100.yaml"), lambda _: THIRTEEN, 80 * 2**30)
    places = {place.name: place for place in wanted.groups["ppo"]}
    needs = {need.role: need for place in places.values() for need in place.needs}
    assert {role: need.ranks for role, need in needs.items()} == {
        "policy": 6, "critic": 6, "reference": 1, "reward": 1, "rollout": 2,
    }  # fmt: skip
    assert places["policy"].bundles == [{"CPU": 4, "GPU": 1}] * 6
    assert needs["rollout"].gpu_bytes == int(0.85 * 80 * 2**30)
    assert sum(size for _, size, _ in needs["policy"].gpu) == needs["policy"].gpu_bytes
    (disk,) = wanted.disks
    assert disk.bytes > 3 * 14 * (THIRTEEN.parameters() + THIRTEEN.parameters(scorer=True))


def test_roles_that_share_a_placement_group_are_estimated_together() -> None:
    shared = recipe("ppo", "--colocate=[[policy, critic]]", "--rollout.placement.ranks=2")
    places = {place.name: place for place in plan(shared, lambda _: SMALL, None).groups["ppo"]}
    assert list(places) == ["policy+critic", "reference", "reward", "rollout"]
    assert [need.role for need in places["policy+critic"].needs] == ["policy", "critic"]


def test_roles_that_take_turns_need_what_the_largest_needs_and_what_the_others_keep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "configs/qwen2.5-1.5b-ppo-1x80gb.yaml"
    shape = RECIPES["qwen2.5-1.5b-ppo-1x80gb"][1]
    (place,) = plan(recipe("ppo", name=name), lambda _: shape, 80 * 2**30).groups["ppo"]
    engine = int(0.75 * 80 * 2**30)
    needs = {need.role: need for need in place.needs}
    assert needs["rollout"].gpu_bytes == engine
    assert max(need.gpu_bytes for need in place.needs) == engine
    assert place.gpu_bytes() == engine + 4 * GPU_CONTEXT
    at_once_config = recipe("ppo", "--sleep=false", "--rollout.engine.gpu_memory_utilization=0.75", name=name)
    (at_once,) = plan(at_once_config, lambda _: shape, 80 * 2**30).groups["ppo"]
    assert at_once.gpu_bytes() == sum(need.gpu_bytes for need in place.needs)
    rows = {role: {part: size for part, size, _ in need.host} for role, need in needs.items()}
    parameters = shape.parameters()
    assert rows["policy"]["asleep"] == (2 + 2 + 12) * parameters
    assert "asleep" not in rows["reference"]
    nodes = parse_nodes(RECIPES["qwen2.5-1.5b-ppo-1x80gb"][0])
    monkeypatch.setattr("cluster.preflight.check._space", lambda disk: Finding("fits", "disk", ""))
    with pytest.raises(ConfigError, match=r"a rank needs .* of a GPU; .*: --sleep=true$"):
        refuse(at_once_config, nodes, lambda _: shape)


def test_with_lora_the_matrices_alone_have_gradients_and_there_is_no_reference() -> None:
    changes = ("--policy.lora.rank=16", "--critic.lora.rank=8", "--reference=null")
    places = {place.name: place for place in plan(recipe("ppo", *changes), lambda _: SMALL, None).groups["ppo"]}
    assert "reference" not in places
    rows = {role: {part: size for part, size, _ in places[role].needs[0].host} for role in ("policy", "critic")}
    assert rows["policy"]["optimizer"] == 12 * lora_parameters(SMALL, LoraConfig(rank=16))
    assert rows["critic"]["optimizer"] == 12 * (lora_parameters(SMALL, LoraConfig(rank=8)) + SMALL.hidden)
    assert rows["policy"]["weights"] == 4 * SMALL.parameters()


def test_rejection_samples_before_it_tunes() -> None:
    wanted = plan(recipe("rejection"), lambda _: SMALL, None)
    roles = {group: [place.name for place in places] for group, places in wanted.groups.items()}
    assert roles == {"sampling": ["rollout", "reward"], "fine-tuning": ["sft"]}


@pytest.mark.parametrize(
    ("change", "nodes", "shape", "message"),
    [
        ("--placement.ranks=8", "8CPU,64GiB", SMALL, r"needs 16 CPU but .* has 8 in all; .*: --placement.ranks=4$"),
        ("--placement.cpus_per_rank=9", "8CPU,64GiB", SMALL, r"needs 9 CPU .*: --placement.cpus_per_rank=7.29$"),
        ("--micro_batch_tokens=65536", "8CPU,200GiB", THIRTEEN, r"trainer: .*; no setting of the roles would fit"),
        ("--placement.gpus_per_rank=1", "8CPU,64GiB", SMALL, r"there is no GPU: compute on CPUs with --placement.gpus_per_rank=0, or"),
        ("--batch_size=2048 --micro_batch_tokens=262144", "8CPU,5GiB", SMALL, r"--zero.gradient_checkpointing=true$"),
    ],
)  # fmt: skip
def test_the_nearest_setting_that_fits_is_named(change: str, nodes: str, shape: Shape, message: str) -> None:
    config = recipe("sft", *change.split())
    with pytest.raises(ConfigError, match=message):
        refuse(config, parse_nodes(nodes), lambda _: shape)


def test_roles_that_fit_one_after_another_are_told_to_share() -> None:
    half = {f"--{role}.placement.cpus_per_rank=0.5" for role in ("policy", "critic", "reference", "reward", "rollout")}
    with pytest.raises(ConfigError, match=r"needs 2.5 CPU but .* has 2 in all; .*: --colocate=all$"):
        refuse(recipe("ppo", *half), parse_nodes("2CPU,64GiB"), lambda _: SMALL)


def test_what_is_named_as_nearest_does_fit() -> None:
    config = recipe("sft", "--placement.ranks=8")
    found = nearest(config, lambda changed: isinstance(changed, SftConfig) and changed.placement.ranks <= 3)
    assert found == "--placement.ranks=2"  # 3 does not divide the batch
    changed = changed_by(config, [("placement.ranks", 2)])
    assert isinstance(changed, SftConfig)
    assert changed.placement.ranks == 2
    assert changed_by(config, [("placement.ranks", 3)]) is None
    assert nearest(config, lambda _: False) is None


@pytest.mark.parametrize(("share", "tried"), [(0.85, {0.9, 0.95}), (0.92, {0.95}), (0.97, set())])
def test_only_more_of_a_gpu_than_is_set_is_tried(share: float, tried: set[float]) -> None:
    config = recipe("ppo", f"--rollout.engine.gpu_memory_utilization={share}", "--keep_checkpoints=1")
    found: list[Any] = []
    assert nearest(config, lambda changed: bool(found.append(changed))) is None
    assert {changed.rollout.engine.gpu_memory_utilization for changed in found} == {share, *tried}
    assert config not in found


def test_an_engine_needs_a_cache_for_one_sequence() -> None:
    wide = Shape(hidden=768, layers=12, intermediate=2048, heads=12, vocab=3584)
    with pytest.raises(ConfigError, match="holds 0.9 sequences of 4,096 .* --rollout.engine.kv_cache_bytes=536870912"):
        refuse(recipe("ppo"), parse_nodes("2CPU,64GiB"), lambda _: wide)


def test_processes_that_cannot_divide_the_model_are_refused() -> None:
    config = recipe("ppo", "--rollout.engine.tensor_parallel_size=3")
    message = "tensor_parallel_size 3: .* has 2 attention heads, which 3 processes cannot .*tensor_parallel_size=2$"
    with pytest.raises(ConfigError, match=message):
        refuse(config, parse_nodes("2CPU,64GiB"), lambda _: SMALL)


def test_a_context_that_the_model_has_not_is_refused() -> None:
    short = Shape(hidden=64, layers=2, intermediate=128, heads=2, vocab=300, context=2048)
    with pytest.raises(ConfigError, match="engine.max_model_len 4096 exceeds the 2048 tokens of .*max_model_len=2048"):
        refuse(recipe("ppo"), parse_nodes("2CPU,64GiB"), lambda _: short)


def test_a_model_whose_size_cannot_be_estimated_is_refused() -> None:
    def unknown(_: str) -> Shape:
        raise ConfigError("model_type 'mamba'")

    with pytest.raises(ConfigError, match=r"^policy: model_type 'mamba' \(and 4 more\)$"):
        refuse(recipe("ppo"), parse_nodes("2CPU,8GiB"), unknown)
    levels = {finding.level for finding in plan(recipe("ppo"), unknown, None).findings}
    assert levels == {"fits", "refused"}


def test_inputs_are_looked_at(clinic: Path, tmp_path: Path) -> None:
    good, lines, broken = clinic / "sft.train.parquet", tmp_path / "a.jsonl", tmp_path / "b.parquet"
    lines.write_text(json.dumps({"text": "x"}) + "\n")
    broken.write_text("no table")
    files = f"--data.train=[{good},{lines},{broken},/nowhere.parquet]"
    config = recipe("sft", f"--model={clinic / 'model'}", files, f"--data.heldout=[{good}]")
    found = [(finding.level, finding.text) for finding in inputs(config, planned=False)]
    assert [level for level, _ in found] == ["fits", "fits", "refused", "refused", "refused", "fits"]
    assert "has no column messages; it has text" in found[2][1]
    assert "cannot be read" in found[3][1]
    assert "there is no file /nowhere.parquet" in found[4][1]
    planned = inputs(recipe("sft", "--model=/nowhere", files), planned=True)
    assert next(planned).level == "unknown"


def big_model(clinic: Path, folder: Path) -> Path:
    """A folder of 13 billion parameters, whose file is all hole: its header says where they are, and nothing is stored."""
    from transformers import AutoConfig, AutoModelForCausalLM

    folder.mkdir()
    for file in (clinic / "model").iterdir():
        if file.name != "config.json" and file.suffix != ".safetensors":
            (folder / file.name).symlink_to(file)
    config = json.loads((clinic / "model" / "config.json").read_text())
    shape = {"hidden_size": 5120, "num_hidden_layers": 40, "intermediate_size": 13824, "num_attention_heads": 40}
    config |= {**shape, "num_key_value_heads": 40, "head_dim": 128}
    (folder / "config.json").write_text(json.dumps(config))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    size = 0
    for name, parameter in model.named_parameters():
        end = size + 2 * parameter.numel()
        header[name] = {"dtype": "BF16", "shape": list(parameter.shape), "data_offsets": [size, end]}
        size = end
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + size)
    return folder


@pytest.mark.slow
def test_a_model_too_large_for_the_cluster_ends_in_ten_seconds(
    clinic: Path, runs: Path, tmp_path: Path, ray_cluster: None, capsys: Any
) -> None:
    from trainers.supervised import driver
    from trainers.supervised.tasks import sft

    model = big_model(clinic, tmp_path / "big")
    data = {split: (str(clinic / f"sft.{split}.parquet"),) for split in ("train", "heldout")}
    config = SftConfig.model_validate(
        {"name": "sft", "model": str(model), "data": {**data, "max_tokens": 512}, "micro_batch_tokens": 512}
    )
    dump(config, tmp_path / "recipe.yaml")
    began = time.monotonic()
    with pytest.raises(SystemExit) as end:
        driver.main(sft.SftStage, "sft", ["--config", str(tmp_path / "recipe.yaml")])
    assert time.monotonic() - began < 10
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert "trainer: the fullest node (1 trainer) needs" in error
    assert error.count("\n") == 1
    assert not runs.exists()


def test_gpus_that_this_machine_lacks_are_refused_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # whatever other tests have started
    monkeypatch.setattr("trainers.preflight.verdict.shape_in_folder", lambda _: SMALL)
    for stage, role in (("sft", ""), ("ppo", "policy."), ("rejection", "reward.")):
        gpu = f"--{role}placement.gpus_per_rank"
        require_machine(recipe(stage, "--cluster.num_cpus=64"))
        message = f"needs 1 GPU but the Ray cluster has 0 in all; there is no GPU: compute on CPUs with {gpu}=0"
        with pytest.raises(ConfigError, match=message):
            require_machine(recipe(stage, "--cluster.num_cpus=64", "--cluster.num_gpus=0", f"{gpu}=1"))
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")  # that cluster may have GPUs
    require_machine(recipe("sft", "--cluster.num_gpus=0", "--placement.gpus_per_rank=1"))


@pytest.mark.slow
def test_checking_an_ordinary_start_takes_no_time(clinic: Path, ray_cluster: None) -> None:
    from trainers.preflight.verdict import require_fit

    config = recipe("sft", f"--model={clinic / 'model'}", "--placement.ranks=1")
    require_fit(config)
    began = time.monotonic()
    require_fit(config)
    assert time.monotonic() - began < 0.2
