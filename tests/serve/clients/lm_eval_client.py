"""lm-evaluation-harness: log-likelihoods of choices and generation over completions, generation over chats."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import lm_eval
import yaml
from lm_eval.tasks import TaskManager
from probing import WORDS, Endpoint, run

QUESTIONS = [{"question": WORDS, "choices": ["内科", "外科"], "answer": 0}, {"question": "骨折看哪科？", "choices": ["内科", "外科"], "answer": 1}]  # fmt: skip


def evaluate(endpoint: Endpoint, model: str, path: str, task: dict[str, Any], **more: Any) -> Any:
    """The results of a task over `QUESTIONS`, which is a file like its description."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "questions.jsonl")
        data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in QUESTIONS))
        described = {
            "task": "triage", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}, "test_split": "test",
            "doc_to_text": "{{question}}", **task,
        }  # fmt: skip
        Path(folder, "triage.yaml").write_text(yaml.safe_dump(described, allow_unicode=True))
        return lm_eval.simple_evaluate(
            model=model,
            model_args={"model": endpoint.model, "base_url": f"{endpoint.v1}/{path}", "max_retries": 1, "max_length": 1024,
                        "tokenizer": endpoint.folder, "header": {"Authorization": f"Bearer {endpoint.key}"}, **more},
            tasks=["triage"],
            task_manager=TaskManager(include_path=folder, include_defaults=False),
            apply_chat_template=model == "local-chat-completions",
            bootstrap_iters=0,
        )  # fmt: skip


GENERATION: dict[str, Any] = {
    "output_type": "generate_until",
    "doc_to_target": "{{choices[answer]}}",
    "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": 12, "do_sample": False},
    "metric_list": [{"metric": "exact_match"}],
}


def loglikelihood(endpoint: Endpoint, **more: Any) -> None:
    task = {
        "output_type": "multiple_choice", "doc_to_choice": "choices", "doc_to_target": "answer", "target_delimiter": "",
        "metric_list": [{"metric": "acc"}],
    }  # fmt: skip
    found = evaluate(endpoint, "local-completions", "completions", task, **more)
    assert 0 <= found["results"]["triage"]["acc,none"] <= 1
    for sample in found["samples"]["triage"]:
        for choice, ((value, _),) in zip(sample["doc"]["choices"], sample["resps"], strict=True):
            prompt = sample["doc"]["question"]
            body = {"model": endpoint.model, "prompt": prompt + choice, "max_tokens": 1, "echo": True, "logprobs": 1}
            count = len(endpoint.post("/tokenize", {"prompt": prompt})["tokens"])
            logprobs = endpoint.post("/v1/completions", body)["choices"][0]["logprobs"]["token_logprobs"]
            assert math.isclose(float(value), sum(logprobs[count:-1]), abs_tol=1e-3), (value, logprobs, count)


def batched(endpoint: Endpoint) -> None:
    loglikelihood(endpoint, batch_size=2, num_concurrent=2)


def generate(endpoint: Endpoint, model: str, path: str, key: str, body: Any, **more: Any) -> None:
    found = evaluate(endpoint, model, path, GENERATION, **more)
    for sample in found["samples"]["triage"]:
        asked = {"model": endpoint.model, "max_tokens": 12, "temperature": 0, "stop": ["\n\n"]}
        reply = endpoint.post(f"/v1/{path}", {**asked, **body(sample["doc"]["question"])})["choices"][0]
        assert sample["resps"] == [[reply["text"] if key == "text" else reply["message"]["content"]]], (sample, reply)


def generate_until(endpoint: Endpoint) -> None:
    generate(endpoint, "local-completions", "completions", "text", lambda text: {"prompt": text})


def chats(endpoint: Endpoint) -> None:
    body = lambda text: {"messages": [{"role": "user", "content": text}]}  # noqa: E731
    generate(endpoint, "local-chat-completions", "chat/completions", "message", body)


run(
    "lm-eval",
    {"loglikelihood": loglikelihood, "batched loglikelihood": batched, "generate_until": generate_until, "chat": chats},
)
