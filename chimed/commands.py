"""The table of commands. Imports nothing else of the project, so that `chimed --help` is immediate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple


class Command(NamedTuple):
    """A command of the project: `chimed NAME` runs `module` like `python -m module`.

    Attributes:
        module: the module to run.
        help: what it does, in a few words.
    """

    module: str
    help: str


GROUPS: Final[Mapping[str, Mapping[str, Command]]] = {
    "start here": {
        "quickstart": Command("trainers.quickstart", "every stage on a small synthetic data set, in minutes"),
        "preflight": Command("cluster.preflight", "estimate a recipe's resources and check that they exist"),
        "install": Command("locks.install", "install the engines and libraries in this Python environment"),
    },
    "data": {
        "data": Command("data.prepare", "convert and clean raw files; find duplicates, mask personal data"),
        "tokenizer": Command("data.tokenizer", "train a tokenizer, or extend one"),
        "vocabulary": Command("trainers.vocabulary", "extend a model to an extended tokenizer"),
        "clinic": Command("data.clinic", "generate the synthetic sample data"),
    },
    "training": {
        "pretrain": Command("trainers.pretrain", "continued pretraining, or pretraining from random weights"),
        "sft": Command("trainers.sft", "supervised fine-tuning on chats"),
        "reward": Command("trainers.reward", "train a reward model on preference pairs"),
        "dpo": Command("trainers.dpo", "direct preference optimization"),
        "ppo": Command("trainers.ppo", "RLHF: PPO, GRPO, RLOO, and other algorithms, with vLLM rollouts"),
        "rejection": Command("trainers.rejection", "rejection-sampling fine-tuning"),
    },
    "results": {
        "eval": Command("evals.run", "evaluate models on exams, NER, dialogues, and attitude scales"),
        "serve": Command("serve", "an OpenAI-compatible endpoint with a chat page"),
        "runs": Command("trainers.list_runs", "the runs, with state, step, and key metrics"),
        "report": Command("trainers.report", "an HTML report about a run, or a comparison of several"),
        "journal": Command("trainers.journal", "the prompts, responses, and rewards that a run recorded"),
    },
    "cluster": {
        "status": Command("cluster.status", "what runs on a cluster, and how it is doing"),
        "listeners": Command("cluster.listeners", "the ports that Ray and this project listen on"),
        "kuberay": Command("cluster.kuberay.check", "check Kubernetes manifests"),
        "rotate": Command("serve.rotate", "replace an API key of an endpoint"),
    },
}
COMMANDS: Final[Mapping[str, Command]] = {name: found for group in GROUPS.values() for name, found in group.items()}


def usage() -> str:
    """Returns the text of `chimed --help`."""
    width = max(map(len, COMMANDS))
    lines = ["usage: chimed COMMAND [ARGUMENT ...]", ""]
    for title, group in GROUPS.items():
        lines += [f"{title}:", *(f"  {name:{width}}  {found.help}" for name, found in group.items()), ""]
    return "\n".join(
        [
            *lines,
            "`chimed COMMAND --help` lists a command's arguments. Every command is also a module: `chimed ppo` is",
            "`python -m trainers.ppo`.",
        ]
    )
