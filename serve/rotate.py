"""python -m serve.rotate KEYS.yaml CONFIG.yaml > DEPLOYED.yaml: writes a Serve config file with the keys of a key file.

`serve deploy DEPLOYED.yaml` then replaces the keys of the running endpoint without a restart. The output contains
digests, not keys.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.arguments import Parser
from configs.errors import ConfigError, one_line_errors
from configs.program import program
from configs.recipe import read_recipe, write_yaml
from serve.keys import Key, read_keys, to_plain

IMPORT_PATH = "serve.app:build"
GATEWAY = "gateway"
PROG = program("serve.rotate")


def main(argv: Sequence[str]) -> None:
    """Writes the config file to standard output."""
    parser = Parser(prog=PROG, description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("keys", metavar="KEYS.yaml", help="key file, in the format of api_keys_file")
    parser.add_argument("config", metavar="CONFIG.yaml", help="Serve config file that was deployed")
    given = parser.parse_args(argv)
    with one_line_errors(PROG):
        config = read_recipe(Path(given.config), given.config).values
        write_yaml(with_keys(config, read_keys(given.keys), given.config), Path("/dev/stdout"))


def with_keys(config: dict[str, Any], keys: Sequence[Key], name: str) -> dict[str, Any]:
    """Sets `keys` in the gateway's `user_config` of every endpoint in `config`, in place, and returns `config`.

    Args:
        config: the contents of a Serve config file.
        keys: the API keys.
        name: the file's name, for the error message.

    Raises:
        ConfigError: `config` contains no endpoint.
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
