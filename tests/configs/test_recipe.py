from __future__ import annotations

from pathlib import Path

import pytest

from configs.errors import ConfigError
from configs.recipe import read_recipe, read_value, write_yaml


def recipe(tmp_path: Path, text: str):
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return read_recipe(path, "recipe.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("-.5", -0.5),
        ("262_144", 262144),
        ("010", 10),
        ("true", True),
        ("on", "on"),
        ("no", "no"),
        ("1:30", "1:30"),
        ("2024-01-31", "2024-01-31"),
        ("'3'", "3"),
        ("[1, a, 2.5]", [1, "a", 2.5]),
        ("", None),
        ("null", None),
        ("咳嗽", "咳嗽"),
    ],
)
def test_scalars_mean_what_they_look_like(text, value):
    read = read_value(text, "--x")
    assert read == value
    assert type(read) is type(value)


def test_lines_are_remembered(tmp_path):
    read = recipe(tmp_path, "common:\n  seed: 1\nppo:\n  rollout:\n    batch: 4\n")
    assert read.values == {"common": {"seed": 1}, "ppo": {"rollout": {"batch": 4}}}
    assert read.where(("ppo", "rollout", "batch")) == "recipe.yaml:5"
    assert read.where(("ppo", "rollout", "missing")) == "recipe.yaml:4"
    assert read.where(("sft",)) == "recipe.yaml"


def test_merged_keys_give_way_to_given_ones_and_keep_their_lines(tmp_path):
    text = "a: &x\n  lr: 1e-5\n  n: 1\nb: &y {n: 2, m: 3}\nc:\n  <<: [*x, *y]\n  lr: 1\nd: {<<: *x}\n"
    read = recipe(tmp_path, text)
    assert read.values["c"] == {"lr": 1, "n": 1, "m": 3}
    assert read.values["d"] == {"lr": 1e-5, "n": 1}
    assert read.where(("c", "lr")) == "recipe.yaml:7"
    assert read.where(("c", "n")) == "recipe.yaml:3"
    assert read.where(("c", "m")) == "recipe.yaml:4"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "recipe.yaml:3: key 'a' is given twice (first on line 1); remove one of them"),
        ("ppo:\n  x: 1\n  x: 2\n", "recipe.yaml:3: key 'x' is given twice (first on line 2); remove one of them"),
        ("a: [1\n", "recipe.yaml:2: not valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("- 1\n", "recipe.yaml: a recipe is a mapping of stages such as `ppo:`, not [1]"),
        ("", "recipe.yaml: a recipe is a mapping of stages such as `ppo:`, not null"),
        ("[a]: 1\n", "recipe.yaml:1: a key must be a plain word, not a list or a mapping"),
        ("a: !!python/name:os 1\n", "recipe.yaml:1: the YAML tag 'tag:yaml.org,2002:python/name:os' has no meaning"),
        ("a: &x\n  b: *x\n", "recipe.yaml:1: an alias (`*name`) that contains itself"),
        ("a: &x\n  <<: *x\n", "recipe.yaml:2: an alias (`*name`) that contains itself"),
        ("a: 1\n<<: 2\n", "recipe.yaml:2: `<<` merges mappings; give one as `<<: *name`, or a list of them"),
        ("a: &x {b: 1}\nc: {<<: [*x, 3]}\n", "recipe.yaml:2: `<<` merges mappings"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n  <<: *x\n", "recipe.yaml:4: key '<<' is given twice (first on line 3)"),
        ("a: 1_\n", "recipe.yaml:1: '1_' is not a number"),
        ("a: \x00\n", "recipe.yaml: not valid YAML"),
    ],
)
def test_what_is_no_recipe_is_refused_with_its_line(tmp_path, text, message):
    with pytest.raises(ConfigError) as caught:
        recipe(tmp_path, text)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(ConfigError, match="none.yaml: cannot be read"):
        read_recipe(tmp_path / "none.yaml", "none.yaml")
    (tmp_path / "gbk.yaml").write_bytes("a: 咳嗽".encode("gbk"))
    with pytest.raises(ConfigError, match="gbk.yaml: is not UTF-8 text; save the file as UTF-8"):
        read_recipe(tmp_path / "gbk.yaml", "gbk.yaml")


def test_written_values_are_read_back(tmp_path):
    values = {
        "ppo": {"lr": 1e-5, "text": ["1e5", "true", "null", "1", "on", "发热"], "none": None, "n": -3, "b": False}
    }
    write_yaml(values, tmp_path / "out.yaml")
    assert read_recipe(tmp_path / "out.yaml", "out.yaml").values == values


@pytest.mark.parametrize("text", ["sft: " + "[" * 5000, "sft: \x00"])
def test_what_yaml_cannot_hold_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"^recipe: not (?:usable|valid) YAML") as refused:
        read_recipe(path, "recipe")
    assert "\n" not in str(refused.value)
