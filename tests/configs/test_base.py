from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from pydantic import Field, ValidationError, model_validator

from configs.base import REPOSITORY, Section, dump, load, read
from configs.errors import ConfigError


class Rollout(Section):
    batch: int = Field(8, gt=0, description="Prompts a step.")
    temperature: float = 1.0
    stops: tuple[str, ...] = ()
    kind: Literal["greedy", "sample"] = "sample"


class Optimizer(Section):
    lr: float = 1e-4
    """Learning rate."""


class PPO(Section):
    """The PPO stage."""

    recipe_key: ClassVar[str] = "ppo"
    seed: int = 0
    model: str
    ranks: int = 2
    folder: Path = Path("runs/x")
    rollout: Rollout = Field(Rollout(), description="How answers are drawn.")
    optimizer: Optimizer | None = None

    @model_validator(mode="after")
    def _batch_divides(self) -> PPO:
        if self.rollout.batch % self.ranks:
            raise ValueError(f"rollout.batch {self.rollout.batch} is not divisible by\n ranks {self.ranks}; change one")
        return self


class SFT(Section):
    recipe_key: ClassVar[str] = "sft"
    seed: int = 0
    epochs: int = 1


SECTIONS = {"ppo": PPO, "sft": SFT}
RECIPE = """\
common:
  seed: 3
ppo:
  model: runs/sft/model
  rollout:
    batch: 4
    stops: [a, b]
    temperature: 1
sft:
  epochs: 2
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE)
    return path


def settings(*argv: str, stage: str = "ppo"):
    return read(stage, SECTIONS, ["--config", "r.yaml", *argv])


def refusal(*argv: str, stage: str = "ppo") -> str:
    with pytest.raises(ConfigError) as caught:
        settings(*argv, stage=stage)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_layers_are_common_then_stage_then_overrides(recipe):
    assert settings().seed == 3
    assert settings(stage="sft") == SFT(seed=3, epochs=2)
    config = settings("--seed=7", "--rollout.batch", "6", "--optimizer.lr=1e-5", "--rollout.stops=[c]")
    assert config == PPO(
        seed=7,
        model="runs/sft/model",
        rollout=Rollout(batch=6, temperature=1.0, stops=("c",)),
        optimizer=Optimizer(lr=1e-5),
    )
    assert isinstance(config.rollout.temperature, float)
    assert settings("--rollout.temperature", "-1").rollout.temperature == -1.0


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            "--rolout.batch=2",
            "--rolout.batch=2: ppo.rolout: no such key; did you mean 'rollout'?; --help lists them all",
        ),
        ("--rollout.bach=2", "--rollout.bach=2: ppo.rollout.bach: no such key; did you mean 'batch'?; --help lists"),
        ("--lr=1", "--lr=1: ppo.lr: no such key; did you mean 'optimizer.lr'?; --help lists them all"),
        ("--zzz=1", "--zzz=1: ppo.zzz: no such key; --help lists them all"),
        ("--rollout.batch=abc", "--rollout.batch=abc: ppo.rollout.batch: must be a valid integer, not 'abc'"),
        ("--rollout.batch='3'", "--rollout.batch='3': ppo.rollout.batch: must be a valid integer, not '3'"),
        ("--rollout.batch=1.0", "--rollout.batch=1.0: ppo.rollout.batch: must be a valid integer, not 1.0"),
        ("--rollout.batch=true", "--rollout.batch=true: ppo.rollout.batch: must be a valid integer, not true"),
        ("--rollout.batch=0", "--rollout.batch=0: ppo.rollout.batch: must be greater than 0, not 0"),
        ("--rollout.batch={a: 1}", "--rollout.batch: takes a value or a list, not a mapping"),
        ("--rollout.kind=beam", "--rollout.kind=beam: ppo.rollout.kind: must be 'greedy' or 'sample', not 'beam'"),
        ("--rollout.stops=[1]", "--rollout.stops=[1]: ppo.rollout.stops.0: must be a valid string, not 1"),
        ("--rollout=3", "--rollout=3: ppo.rollout: must be an object, not 3"),
        ("--model=3", "--model=3: ppo.model: must be a valid string, not 3; quote it twice"),
        ("--optimizer.lr=.inf", "--optimizer.lr=.inf: ppo.optimizer.lr: must be a valid number, not '.inf'"),
        ("--rollout.batch=3", "r.yaml --rollout.batch=3: ppo: rollout.batch 3 is not divisible by ranks 2; change one"),
        ("--seed=[", "--seed: not valid YAML"),
        ("--seed", "--seed: has no value; give --seed=VALUE"),
        ("--=3", "--: is not a key"),
        ("seed=3", "'seed=3' is not an option; settings are given as --key=value"),
        ("-seed=3", "'-seed=3' is not an option"),
    ],
)
def test_bad_overrides_are_refused_by_name(recipe, argv, message):
    assert refusal(argv).startswith(message)


def test_an_override_given_twice_is_refused(recipe):
    assert refusal("--seed=1", "--seed", "2") == "--seed: is given twice; keep one of the two"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  seed: 3", "  sed: 3", "r.yaml:2: sft.sed: no such key; did you mean 'seed'?"),
        ("sft:", "sfd:", "r.yaml:9: 'sfd' is not a stage; did you mean 'sft'?; a recipe has common, ppo, sft"),
        ("    batch: 4", "    batch: x", "r.yaml:6: ppo.rollout.batch: must be a valid integer, not 'x'"),
        ("    batch: 4", "    batch: 4\n    batch: 5", "r.yaml:7: key 'batch' is given twice (first on line 6)"),
        (
            "  model: runs/sft/model\n",
            "",
            "r.yaml:3: ppo.model: is required; set it under `ppo:` or give --model=VALUE",
        ),
        ("  model: ", "  modell: ", "r.yaml:4: ppo.modell: no such key; did you mean 'model'?"),
        ("  epochs: 2", "  - 2", "r.yaml:9: sft must be a mapping of keys, not [2]"),
        ("  epochs: 2", "  epochs: two", "r.yaml:10: sft.epochs: must be a valid integer, not 'two'"),
    ],
)
def test_bad_recipes_are_refused_with_their_line(recipe, old, new, message):
    assert old in RECIPE
    recipe.write_text(RECIPE.replace(old, new))
    assert refusal().startswith(message)


def test_more_problems_are_counted(recipe):
    assert refusal("--seed=a", "--rollout.batch=b").endswith("(and 1 more)")


def test_a_missing_recipe_is_named():
    with pytest.raises(ConfigError, match="--config=none.yaml: there is no such file here or in"):
        read("ppo", SECTIONS, ["--config=none.yaml"])


def test_the_default_recipe_lies_in_the_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (REPOSITORY / "configs" / "laptop.yaml").is_file()
    with pytest.raises(ConfigError, match=r"^configs/laptop.yaml:\d+: 'pretrain' is not a stage"):
        read("ppo", SECTIONS, [])


def test_load_prints_one_line_and_exits_with_2(recipe, capsys):
    with pytest.raises(SystemExit) as left:
        load("ppo", SECTIONS, ["--config=r.yaml", "--seed=x"], "trainers.ppo")
    assert left.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "trainers.ppo: error: --seed=x: ppo.seed: must be a valid integer, not 'x'\n"


def test_help_lists_every_field_and_needs_no_recipe(capsys):
    with pytest.raises(SystemExit) as left:
        load("ppo", SECTIONS, ["--config=none", "--help"], "python -m trainers.ppo")
    assert left.value.code == 0
    text = capsys.readouterr().out
    for line in (
        "usage: python -m trainers.ppo [--config FILE] [--key=value ...]",
        "  --model  str (required)",
        "  --rollout.batch  int > 0 (default 8)\n      Prompts a step.",
        "  --rollout.kind  greedy | sample (default sample)",
        "  --rollout.stops  tuple[str, ...] (default [])",
        "  --optimizer.lr  float (default 0.0001)\n      Learning rate.",
        "rollout:\n  How answers are drawn.",
    ):
        assert line in text


def test_dumped_settings_are_a_recipe(recipe, tmp_path):
    config = settings("--optimizer.lr=1e-5", "--rollout.stops=['1e5', '']")
    dump(config, tmp_path / "config.yaml")
    assert read("ppo", SECTIONS, ["--config", str(tmp_path / "config.yaml")]) == config
    with pytest.raises(TypeError, match="Rollout is not the settings of a stage"):
        dump(Rollout(), tmp_path / "rollout.yaml")


def test_settings_do_not_change(recipe):
    with pytest.raises(ValidationError, match="frozen"):
        settings().seed = 1


def test_reading_settings_is_light():
    code = "import configs.base, sys; print([m for m in ('torch', 'ray', 'numpy', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert done.stdout == "[]\n"
