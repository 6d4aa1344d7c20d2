"""Rewards from a function in the user's Python file."""

from __future__ import annotations

import hashlib
import inspect
import sys
import traceback
from collections.abc import Callable
from copy import deepcopy
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from types import ModuleType
from typing import Any

from actors.rewards.config import FunctionRewardConfig
from actors.rewards.sample import RewardFunctionError, Sample, checked, describe, label_of
from configs.errors import ConfigError
from storage.paths import require_file

SHAPES = "reward(samples), which returns a list, or reward(sample), which returns a number"


class PythonReward:
    """A function of all samples, `def reward(samples) -> list[float]`, or of one, `def reward(sample) -> float`."""

    def __init__(self, name: str, config: FunctionRewardConfig) -> None:
        """Imports the file.

        Args:
            name: the reward's name.
            config: the file and the function's name.

        Raises:
            ConfigError: the file does not exist or raises on import, or the function does not exist or does not take
                exactly one parameter `samples` or `sample`.
        """
        self.name = name
        self._label = label_of(name)
        self._path = require_file(config.file, self._label, "give the Python file that has the function").absolute()
        self._function = self._find(self._import(), config.function)
        self._one_by_one = self._takes_one(config.function)

    def score(self, samples: list[Sample]) -> list[float]:
        """Returns one finite number per sample, in order.

        After an exception, calls the function again on parts of the samples, to find the one that it fails on.

        Raises:
            RewardFunctionError: the function raised, or did not return one finite number per sample.
        """
        batches = [[sample] for sample in samples] if self._one_by_one else [samples] if samples else []
        rewards: list[float] = []
        for batch in batches:
            try:
                returned = self._call(batch)
            except (Exception, SystemExit) as error:
                on = describe(self._culprit(batch, type(error)))
                raise RewardFunctionError(
                    f"{self._label}: {self._where(error)}: raised {_words(error)} on {on}"
                ) from error
            rewards += checked(self._label, batch, returned)
        return rewards

    def _call(self, samples: list[Sample]) -> Any:
        given = deepcopy(samples)  # so that changes to the samples do not reach the next source
        return [self._function(given[0])] if self._one_by_one else self._function(given)

    def _culprit(self, samples: list[Sample], kind: type[BaseException]) -> list[Sample]:
        """Returns the smallest part of `samples`, found by halving, on which the function raises `kind`."""
        while len(samples) > 1:
            halves = (samples[: len(samples) // 2], samples[len(samples) // 2 :])
            failing = next((half for half in halves if self._raises(half, kind)), None)
            if failing is None:
                break
            samples = failing
        return samples

    def _raises(self, samples: list[Sample], kind: type[BaseException]) -> bool:
        try:
            self._call(samples)
        except (Exception, SystemExit) as error:  # noqa: BLE001  the first error is reported; this locates its sample
            return type(error) is kind
        return False

    def _import(self) -> ModuleType:
        """Imports the file as a module with a unique name."""
        digest = hashlib.sha256(str(self._path).encode()).hexdigest()[:16]
        name = f"chimed_reward_{self.name}_{digest}"
        loader = SourceFileLoader(name, str(self._path))
        spec = spec_from_loader(name, loader)
        assert spec is not None
        module = module_from_spec(spec)
        sys.modules[name] = module  # dataclasses, among others, look up their module here
        try:
            loader.exec_module(module)
        except (Exception, SystemExit) as error:
            del sys.modules[name]
            raise ConfigError(
                f"{self._label}: {self._where(error)}: importing the file raised {_words(error)}; repair it"
            ) from error
        return module

    def _find(self, module: ModuleType, name: str) -> Callable[[Any], Any]:
        function = getattr(module, name, None)
        if callable(function):
            return function
        there = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        has = f"it has {', '.join(there)}" if there else "it defines none"
        raise ConfigError(f"{self._label}: {self._path}: there is no function '{name}'; {has}")

    def _takes_one(self, name: str) -> bool:
        """Returns whether the function takes a single sample, as its parameter's name indicates.

        Raises ConfigError if the function is a coroutine or generator, or has other parameters.
        """
        where = f"{self._label}: {self._path}: {name}"
        kinds = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
        if any(is_kind(self._function) for is_kind in kinds):
            raise ConfigError(f"{where} is a coroutine or generator; let a plain function return its rewards")
        try:
            signature = inspect.signature(self._function)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{where} does not tell its parameters; write {SHAPES}") from error
        parameters = list(signature.parameters.values())
        if len(parameters) != 1 or parameters[0].name not in ("sample", "samples"):
            raise ConfigError(f"{where}{signature}: takes other parameters; write {SHAPES}")
        if parameters[0].kind not in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD):
            raise ConfigError(f"{where}{signature}: does not take its parameter by position; write {SHAPES}")
        return parameters[0].name == "sample"

    def _where(self, error: BaseException) -> str:
        """Returns `file:line` of an exception's innermost frame in the user's file; only the file if it has none."""
        file = str(self._path)
        if isinstance(error, SyntaxError) and error.filename == file:
            return f"{file}:{error.lineno}"
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
        return f"{file}:{lines[-1]}" if lines else file


def _words(error: BaseException) -> str:
    """Returns the last line of an exception's traceback, at most 300 characters."""
    return "".join(traceback.format_exception_only(error)[-1:]).strip()[:300]
