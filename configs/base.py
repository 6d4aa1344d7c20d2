"""Typed configuration: a stage's settings = the recipe's `common`, its own section, then `--a.b=value` overrides.

Every stage's settings are one `Section`, whose fields may be further sections. Validation is strict: unknown keys,
wrong types (`"3"` is not 3) and impossible combinations raise a one-line error that names the file or flag and the
key. Importing this module loads neither torch nor ray, so a typo is reported within milliseconds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from configs.errors import ConfigError, one_line_errors
from configs.help import help_text
from configs.program import spelled
from configs.recipe import Key, Recipe, read_recipe, read_value, short, write_yaml
from configs.schema import field_paths, section_at
from configs.suggestions import did_you_mean

REPOSITORY = Path(__file__).resolve().parent.parent
DEFAULT_RECIPE = "configs/laptop.yaml"

SectionT = TypeVar("SectionT", bound="Section")


class Section(BaseModel):
    """Base class of settings models. Rejects unknown keys, converts no types except int to float, and is immutable."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        use_attribute_docstrings=True,
    )

    recipe_key: ClassVar[str] = ""
    """The stage's key in a recipe, such as `recipe_key = "ppo"`; set on the settings of a whole stage."""
    may_change: ClassVar[frozenset[str]] = frozenset()
    """Keys of a stage whose values may differ when a run is resumed: they affect where it computes, not what."""
    may_grow: ClassVar[frozenset[str]] = frozenset()
    """Keys of a stage's length, whose values may be larger when a run is resumed unless `length_matters`; None is largest."""

    longer_with: ClassVar[str] = ""
    """The flag with which a run can be made longer although `length_matters`, and what it changes; empty if there is
    none."""

    @property
    def length_matters(self) -> bool:
        """Whether steps depend on the number of all steps: a run then cannot be made longer."""
        return False


def load(stage: str, sections: Mapping[str, type[Section]], argv: Sequence[str], prog: str) -> Section:
    """Loads and validates the settings of `stage` from a command line. A trainer's `main` calls this first.

    Args:
        stage: key of the stage in `sections`.
        sections: the settings model of every stage that a recipe may have, by stage.
        argv: the arguments after the program's name: `--config FILE`, `--a.b=value` or `--a.b value`, `--help`.
        prog: the program's name in messages and in the help, e.g. `python -m trainers.ppo`.

    Raises:
        SystemExit: 0 after `--help`; 2 after a one-line message on stderr about the first error.
    """
    with one_line_errors(prog):
        if not any(argument in ("--help", "-h") for argument in argv):
            return read(stage, sections, argv)
        print(spelled(help_text(prog, stage, sections[stage], DEFAULT_RECIPE)))
    raise SystemExit(0)


def read(stage: str, sections: Mapping[str, type[Section]], argv: Sequence[str]) -> Section:
    """Loads a recipe like `load`, but raises `ConfigError` instead of exiting. Validates every stage in the recipe."""
    command = _read_command_line(argv)
    recipe = read_recipe(find_recipe(command.config), command.config)
    for key in recipe.values:
        if key != "common" and key not in sections:
            raise ConfigError(
                f"{recipe.where((key,))}: '{key}' is not a stage{did_you_mean(key, [*sections, 'common'])}; "
                f"a recipe has {', '.join(['common', *sections])}"
            )
    for other, model in sections.items():
        if other != stage and other in recipe.values:
            _validate(model, _Layers(other, recipe))
    return _validate(sections[stage], _Layers(stage, recipe, command))


def from_arguments(stage: str, model: type[SectionT], arguments: Mapping[str, Any]) -> SectionT:
    """Builds settings from `key=value` arguments instead of a recipe, in the form in which `serve run` passes them.

    A key may name a field of a section (`a.b=value`). A text value is parsed as a YAML scalar or list; other values
    are used unchanged.

    Raises:
        ConfigError: an argument is invalid; the message names it.
    """
    command = _CommandLine()
    for name, given in arguments.items():
        value = read_value(given, name) if isinstance(given, str) else given
        key = tuple(name.split("."))
        command.overrides[key], command.flags[key] = value, f"{name}={given}"
    settings = _validate(model, _Layers(stage, Recipe("arguments", {}, numbered=False), command))
    assert isinstance(settings, model)
    return settings


def dump(config: Section, path: Path) -> None:
    """Writes resolved settings as a recipe of one stage, which `--config` accepts.

    Raises:
        TypeError: `config` is not the settings of a whole stage: it has no `recipe_key`.
    """
    if not config.recipe_key:
        raise TypeError(f"{type(config).__name__} is not the settings of a stage: it has no recipe_key")
    write_yaml({config.recipe_key: config.model_dump(mode="json")}, path)


@dataclass
class _CommandLine:
    config: str = DEFAULT_RECIPE
    overrides: dict[Key, Any] = field(default_factory=dict)
    flags: dict[Key, str] = field(default_factory=dict)  # each override as it was typed


def _read_command_line(argv: Sequence[str]) -> _CommandLine:
    command, seen = _CommandLine(), set[str]()
    rest = list(argv)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("--") or argument == "--":
            raise ConfigError(f"'{argument}' is not an option; settings are given as --key=value")
        if argument == "--insecure":
            argument = "--cluster.insecure=true"
        name, equals, text = argument[2:].partition("=")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise ConfigError(f"--{name}: has no value; give --{name}=VALUE")
            text = rest.pop(0)
        if name in seen:
            raise ConfigError(f"--{name}: is given twice; keep one of the two")
        seen.add(name)
        if name == "config":
            command.config = text
            continue
        value = read_value(text, f"--{name}")
        if isinstance(value, dict):
            raise ConfigError(f"--{name}: takes a value or a list, not a mapping; give --{name}.KEY=VALUE for each key")
        key = tuple(name.split("."))
        if not all(key):
            raise ConfigError(f"--{name}: is not a key; settings are given as --key=value or --section.key=value")
        command.overrides[key], command.flags[key] = value, f"--{name}={text}"
    return command


def find_recipe(name: str) -> Path:
    """Returns the path of a recipe: relative to the working directory, else relative to the repository.

    Raises:
        ConfigError: the file exists in neither.
    """
    for path in (Path(name), REPOSITORY / name):
        if path.is_file():
            return path
    known = [f"configs/{path.name}" for path in (REPOSITORY / "configs").glob("*.yaml")]
    raise ConfigError(
        f"--config={name}: there is no such file here or in {REPOSITORY}{did_you_mean(name, known)}; give an existing "
        f"recipe, such as {DEFAULT_RECIPE}"
    )


class _Layers:
    """A stage's raw values, merged from the recipe and the overrides, and the source of each value."""

    def __init__(self, stage: str, recipe: Recipe, command: _CommandLine | None = None) -> None:
        command = command or _CommandLine()
        self.stage, self.recipe, self.flags = stage, recipe, command.flags
        self.values: dict[str, Any] = {}
        for layer in ("common", stage):
            given = recipe.values.get(layer)
            if given is None:
                continue
            if not isinstance(given, dict):
                raise ConfigError(f"{recipe.where((layer,))}: {layer} must be a mapping of keys, not {short(given)}")
            self.values = _merged(self.values, given)
        for key, value in command.overrides.items():
            for part in reversed(key):
                value = {part: value}
            self.values = _merged(self.values, value)

    def where(self, key: Key) -> str:
        """Returns the flag or `file:line` that set `key`; for the whole stage, the file and all overrides."""
        for length in range(len(key), 0, -1):
            part = key[:length]
            for flag in self.flags:
                if flag[:length] == part:
                    return self.flags[flag]
            for layer in (self.stage, "common"):
                if (layer, *part) in self.recipe.lines:
                    return self.recipe.where((layer, *part))
        return self.recipe.where((self.stage,)) if key else " ".join([self.recipe.name, *self.flags.values()])


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(under)
    for key, value in over.items():
        old = result.get(key)
        result[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def _validate(model: type[Section], layers: _Layers) -> Section:
    try:
        # Validate as JSON: strict Python input would reject a list for a tuple field and text for a path or enum.
        return model.model_validate_json(json.dumps(layers.values))
    except ValidationError as error:
        # A misspelled required key causes two errors, unknown key and missing key. The first is more informative.
        problems = sorted(error.errors(include_url=False), key=lambda problem: problem["type"] != "extra_forbidden")
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ConfigError(_explain(problems[0], model, layers) + more) from error


def _explain(problem: ErrorDetails, model: type[Section], layers: _Layers) -> str:
    """Formats a pydantic error as one line: where, which key, what is wrong, what to do."""
    key = _key_in(layers.values, problem["loc"], missing=problem["type"] == "missing")
    name = ".".join([layers.stage, *map(str, key)])
    start = f"{layers.where(key)}: {name}: "
    if problem["type"] == "extra_forbidden":
        here = section_at(model, key[:-1])
        hint = did_you_mean(str(key[-1]), list(here.model_fields) if here else [])
        if not hint:
            hint = did_you_mean(str(key[-1]), [path for path in field_paths(model) if "." in path], leaf=True)
        return f"{start}no such key{hint}; --help lists them all"
    if problem["type"] == "missing":
        return f"{start}is required; set it under `{layers.stage}:` or give --{'.'.join(map(str, key))}=VALUE"
    if problem["type"] == "value_error":
        return f"{start}{problem['ctx']['error']}"
    wanted = problem["msg"].replace("Input should be", "must be")
    quote = (
        "; quote it twice to give text: '\"...\"'" if problem["type"] == "string_type" and key in layers.flags else ""
    )
    return f"{start}{wanted}, not {short(problem['input'])}{quote}"


def _key_in(values: Any, loc: Key, *, missing: bool) -> Key:
    """Returns `loc` without the parts that pydantic adds for unions, which do not exist in `values`."""
    key: list[str | int] = []
    for part in loc:
        if (isinstance(values, dict) and part in values) or (isinstance(values, list) and isinstance(part, int)):
            values = values[part]  # type: ignore[index]
            key.append(part)
    return (*key, loc[-1]) if missing else tuple(key)
