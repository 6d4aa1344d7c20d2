"""python -m serve.rotate KEYS.yaml CONFIG.yaml > DEPLOYED.yaml: a Serve config file with the keys of a key file.

`serve deploy DEPLOYED.yaml` then changes the keys of the running endpoint and restarts nothing. The output holds digests,
not keys.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.errors import ConfigError, one_line_errors
from configs.recipe import read_recipe, write_yaml
from serve.keys import Key, read_keys, to_plain

IMPORT_PATH = "serve.app:build"
GATEWAY = "gateway"


def main(argv: Sequence[str]) -> None:
    """Prints the config file."""
    with one_line_errors("python -m serve.rotate"):
        if len(argv) != 2 or argv[0].startswith("-"):
            raise ConfigError(
                "give the key file and the Serve config file: python -m serve.rotate KEYS.yaml CONFIG.yaml"
            )
        keys, config = argv
        write_yaml(with_keys(read_recipe(Path(config), config).values, read_keys(keys), config), Path("/dev/stdout"))


def with_keys(config: dict[str, Any], keys: Sequence[Key], name: str) -> dict[str, Any]:
    """`config` with `keys` as the setting of the gateway of every endpoint in it.

    Raises:
        ConfigError: there is no endpoint in it.
    """
    endpoints = [app for app in config.get("applications") or [] if app.get("import_path") == IMPORT_PATH]
    if not endpoints:
        raise ConfigError(f"{name}: has no application with import_path {IMPORT_PATH}; give the endpoint's config file")
    for endpoint in endpoints:
        others = [each for each in endpoint.get("deployments") or [] if each["name"] != GATEWAY]
        endpoint["deployments"] = [*others, {"name": GATEWAY, "user_config": {"keys": to_plain(keys)}}]
    return config


if __name__ == "__main__":
    main(sys.argv[1:])
