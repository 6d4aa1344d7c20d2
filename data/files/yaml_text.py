"""Reads YAML files, and JSON as a subset of YAML, as plain Python values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from configs.errors import DataError
from data.files.records import whole_text


class StrictLoader(yaml.SafeLoader):
    """A safe loader that rejects duplicate keys, for which PyYAML would silently keep the last value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Builds a mapping.

        Raises:
            YAMLError: a key is given twice; the message names the line.
        """
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"line {node.start_mark.line + 1}: the key '{key}' is given twice")
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: Path, loader: type[yaml.SafeLoader] = StrictLoader) -> Any:
    """Returns the value of a YAML file, whose encoding is detected as for all text files.

    Raises:
        DataError: the file cannot be read, is not YAML, is nested too deeply, or gives a key twice.
    """
    text = whole_text(path)
    try:
        return yaml.load(text, Loader=loader)  # noqa: S506 - a safe loader
    except yaml.YAMLError as error:
        raise DataError(f"{path}: not readable as YAML or JSON: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise DataError(f"{path}: not usable YAML or JSON: nested too deeply") from error
    except ValueError as error:  # an invalid date, an integer of thousands of digits
        raise DataError(f"{path}: not usable YAML or JSON: {error}") from error
