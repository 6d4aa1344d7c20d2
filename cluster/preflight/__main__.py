"""python -m cluster.preflight: checks whether the stages of a recipe fit on a cluster, and estimates their resources.

    python -m cluster.preflight --config configs/laptop.yaml                  every stage of the recipe
    python -m cluster.preflight --config F --stage ppo --policy.zero.stage=2  one stage, with other settings
    python -m cluster.preflight --config F --verbose                          with every estimate, as tables
    python -m cluster.preflight --config F --nodes 2x64CPU,8GPU,1000GiB,H100  on a planned cluster

Without --nodes it checks the cluster at RAY_ADDRESS, and without RAY_ADDRESS this machine, where a stage would start a
local cluster. It starts nothing and reads no weights. Exit status: 0, or 2 if something is refused.

This is the only command of the package that depends on the stages: it imports `trainers`, and nothing imports it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from actors.model_folder.config_json import read_shape
from actors.model_folder.source import config_dir, repository_of, tokenizer_dir
from actors.sizing.shape import Shape, new_shape, parse_shape, vocabulary
from cluster.environment import head_address
from cluster.head import Head
from cluster.preflight.capacity import GIB, Capacity, capacity_of, parse_nodes, this_machine
from cluster.preflight.check import check
from cluster.preflight.needs import Finding, gib
from cluster.preflight.report import show, show_verdict
from cluster.preflight.versions import versions
from configs.arguments import Parser
from configs.base import Section, find_recipe, read
from configs.errors import ConfigError, one_line_errors
from configs.logs import configure
from configs.program import program
from configs.recipe import read_recipe
from storage.paths import resolve
from trainers.config.stages import STAGES
from trainers.config.supervised import PretrainConfig
from trainers.preflight.inputs import inputs
from trainers.preflight.needs import plan
from trainers.preflight.verdict import advice

PROG = program("cluster.preflight")


def main(argv: Sequence[str] | None = None) -> None:
    """Prints a verdict for one stage or for all; exits with status 2 and one line of reasons if a stage is refused."""
    options, settings = _parse(argv)
    configure("cluster.preflight")
    with one_line_errors(PROG):
        arguments = ["--config", options.config, *settings]
        stages = [options.stage] if options.stage else _stages(options.config)
        if not options.stage and settings:
            raise ConfigError(f"{settings[0]}: name the stage of this setting with --stage {'|'.join(stages)}")
        pretrain = _pretrain(options.config)
        refused = [line for stage in stages for line in _look(read(stage, STAGES, arguments), pretrain, options)]
        drifted = list(versions())
        show_verdict("versions", drifted)
        if options.verbose:
            show(None, drifted)
        refused += [f"{finding.subject}: {finding.text}" for finding in drifted if finding.level == "refused"]
        if refused:
            raise ConfigError("; ".join(refused))


def _look(config: Any, pretrain: PretrainConfig | None, options: argparse.Namespace) -> list[str]:
    """Prints one stage's verdict, and with --verbose its tables.

    Returns:
        A line that says why the stage is refused; an empty list if it is not.
    """
    shape_of, capacity = _shapes(options.shape, pretrain), _capacity(config, options)
    wanted = plan(config, shape_of, capacity.gpu_bytes)
    disks = [Finding("fits", "disk", f"{gib(disk.bytes)} to write ({disk.why})") for disk in wanted.disks]
    if options.nodes:  # this machine's disk is not that cluster's
        wanted = replace(wanted, disks=(), findings=(*wanted.findings, *disks))
    found = [*inputs(config, planned=bool(options.shape)), *check(wanted, capacity)]
    show_verdict(f"{config.recipe_key} ({config.name})", found)
    if options.verbose:
        show(wanted, found)
    refused = [finding for finding in dict.fromkeys(found) if finding.level == "refused"]
    if not refused:
        return []
    more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
    lacks = any(finding.subject != "inputs" for finding in refused)
    todo = f"; {advice(config, capacity, shape_of, disk=not options.nodes)}" if lacks else ""
    return [f"{config.recipe_key}: {refused[0].subject}: {refused[0].text}{more}{todo}"]


def _shapes(given: str | None, pretrain: PretrainConfig | None) -> Callable[[str], Shape]:
    """Returns a function from a model's folder to its shape.

    The shape comes from the folder if it exists, else from --shape, else from the Hub, else from the model that the
    recipe's pretraining creates.
    """
    fallback = parse_shape(given) if given else None

    def shape_of(folder: str) -> Shape:
        path = resolve(folder)
        if path.exists():
            return read_shape(config_dir(folder))
        if fallback is not None:
            return fallback
        if repository_of(folder) is not None:
            return read_shape(config_dir(folder))
        if pretrain and pretrain.architecture and pretrain.tokenizer:
            return new_shape(pretrain.architecture, vocabulary(tokenizer_dir(pretrain.tokenizer)))
        raise ConfigError(f"there is no folder {path} yet; describe the model with --shape hidden=5120,layers=40,...")

    return shape_of


def _capacity(config: Any, options: argparse.Namespace) -> Capacity:
    address = head_address()
    if options.nodes:
        capacity = parse_nodes(options.nodes)
    elif address is None:
        capacity = this_machine(config.cluster.num_cpus, config.cluster.num_gpus)
    else:
        from cluster.status.__main__ import find

        with Head(find(address)) as head:
            capacity = capacity_of(head)
    return capacity.with_gpus_of(int(options.gpu_gib * GIB) if options.gpu_gib else None)


def _stages(recipe: str) -> list[str]:
    """Returns the stages of a recipe."""
    return [stage for stage in STAGES if stage in read_recipe(find_recipe(recipe), recipe).values]


def _pretrain(recipe: str) -> PretrainConfig | None:
    """Returns the recipe's pretraining settings, or None. The models of the other stages descend from its model."""
    config: Section | None = read("pretrain", STAGES, ["--config", recipe]) if "pretrain" in _stages(recipe) else None
    assert config is None or isinstance(config, PretrainConfig)
    return config


def _parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    parser = Parser(
        prog=PROG,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        epilog="All other options, --a.b=value, are settings of the stage.",
    )
    parser.add_argument("--config", default="configs/laptop.yaml", help="recipe, a YAML file (default: %(default)s)")
    parser.add_argument("--stage", choices=STAGES, help="stage to check (default: all stages of the recipe)")
    parser.add_argument("--shape", help="shape of models whose folders do not exist yet: hidden=5120,layers=40,...")
    parser.add_argument("--nodes", help="planned cluster, e.g. 2x64CPU,8GPU,1000GiB,H100; join node types by +")
    parser.add_argument("--verbose", action="store_true", help="also print every estimate and every finding")
    parser.add_argument("--gpu-gib", type=float, help="memory per GPU in GiB, if Ray does not report the GPU type")
    return parser.parse_known_args(sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    main()
