"""python -m benchmarks.serving.compatibility --model DIR: compares the requests that the endpoint and vLLM accept.

Sends requests of many kinds to the endpoint and to bare `vllm serve`. A kind is one argument of OpenAI's clients or of
vLLM's interfaces, or one form of a message. Prints a table: `yes` for a successful response, else the status and the
reason. The model needs a chat template.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from benchmarks.serving.servers import MODEL, SERVERS
from configs.errors import one_line_errors
from storage.paths import require_dir

PROG = "python -m benchmarks.serving.compatibility"

ASK = [{"role": "user", "content": "头痛怎么办？"}]
SCHEMA = {
    "type": "object",
    "properties": {"急": {"type": "boolean"}},
    "required": ["急"],
    "additionalProperties": False,
}
FUNCTION = {"name": "lookup", "description": "科室", "parameters": SCHEMA}
TOOL = {"type": "function", "function": FUNCTION}
CALL = {"id": "call_1", "type": "function", "function": {"name": "lookup", "arguments": '{"急": true}'}}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "内科"}
ANSWER = {
    "role": "assistant", "content": "多休息。", "refusal": None, "annotations": None, "audio": None, "function_call": None,
    "tool_calls": None,
}  # fmt: skip
FORM = {"type": "json_schema", "json_schema": {"name": "form", "schema": SCHEMA, "strict": True}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}

CHATS: dict[str, dict[str, Any]] = {
    "messages: user": {},
    "messages: system": {"messages": [{"role": "system", "content": "简短"}, *ASK]},
    "messages: developer": {"messages": [{"role": "developer", "content": "简短"}, *ASK]},
    "messages: parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "头痛"}]}]},
    "messages: name": {"messages": [{**ASK[0], "name": "病人"}]},
    "messages: two of the user": {"messages": ASK * 2},
    "messages: empty": {"messages": [{"role": "user", "content": ""}]},
    "messages: response sent back": {"messages": [*ASK, ANSWER, *ASK]},
    "messages: response with reasoning sent back": {"messages": [*ASK, {**ANSWER, "reasoning": "想"}, *ASK]},
    "messages: empty response sent back": {"messages": [*ASK, {"role": "assistant", "content": ""}, *ASK]},
    "messages: call and result sent back": {
        "messages": [*ASK, {"role": "assistant", "content": None, "tool_calls": [CALL]}, RESULT], "tools": [TOOL],
    },
    "messages: image": {"messages": [{"role": "user", "content": [IMAGE]}]},
    "continue_final_message": {
        "messages": [*ASK, {"role": "assistant", "content": "多"}], "continue_final_message": True,
        "add_generation_prompt": False,
    },
    "add_generation_prompt=false": {"add_generation_prompt": False},
    "echo": {"echo": True},
    "add_special_tokens": {"add_special_tokens": True},
    "documents": {"documents": [{"title": "a", "text": "b"}]},
    "chat_template": {"chat_template": "{{ messages[0].content }}"},
    "chat_template_kwargs": {"chat_template_kwargs": {"enable_thinking": False}},
    "reasoning_effort": {"reasoning_effort": "low"},
    "verbosity": {"verbosity": "low"},
    "modalities": {"modalities": ["text"]},
    "audio": {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}},
    "prediction": {"prediction": {"type": "content", "content": "多休息"}},
    "web_search_options": {"web_search_options": {}},
    "max_completion_tokens": {"max_completion_tokens": 4},
    "logprobs": {"logprobs": True},
    "top_logprobs=5": {"logprobs": True, "top_logprobs": 5},
    "top_logprobs=20": {"logprobs": True, "top_logprobs": 20},
    "response_format: text": {"response_format": {"type": "text"}},
    "tools": {"tools": [TOOL]},
    "tools=[]": {"tools": []},
    "tool_choice=none": {"tools": [TOOL], "tool_choice": "none"},
    "tool_choice=none without tools": {"tool_choice": "none"},
    "tool_choice=auto": {"tools": [TOOL], "tool_choice": "auto"},
    "tool_choice=required": {"tools": [TOOL], "tool_choice": "required"},
    "tool_choice: named": {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "lookup"}}},
    "parallel_tool_calls": {"tools": [TOOL], "tool_choice": "none", "parallel_tool_calls": False},
    "functions": {"functions": [FUNCTION]},
    "function_call": {"function_call": "none"},
}  # fmt: skip
BOTH: dict[str, dict[str, Any]] = {
    "max_tokens": {"max_tokens": 4},
    "max_tokens=null": {"max_tokens": None, "min_tokens": 1, "stop": ["。"]},
    "min_tokens": {"min_tokens": 2},
    "temperature=0": {"temperature": 0},
    "temperature=2": {"temperature": 2},
    "top_p": {"top_p": 0.9},
    "top_k": {"top_k": 5},
    "min_p": {"min_p": 0.1},
    "n=3": {"n": 3, "temperature": 0.7},
    "n=3 at temperature 0": {"n": 3, "temperature": 0},
    "best_of": {"best_of": 2, "temperature": 0.7},
    "seed": {"seed": 7},
    "seed < 0": {"seed": -7},
    "presence_penalty": {"presence_penalty": 1},
    "frequency_penalty": {"frequency_penalty": 1},
    "repetition_penalty": {"repetition_penalty": 1.2},
    "length_penalty": {"length_penalty": 1.2},
    "use_beam_search": {"use_beam_search": True, "n": 2},
    "logit_bias": {"logit_bias": {"17": 5}},
    "allowed_token_ids": {"allowed_token_ids": [17, 18]},
    "bad_words": {"bad_words": ["坏"]},
    "stop: one": {"stop": "。"},
    "stop: four": {"stop": ["一", "二", "三", "四"]},
    "stop: five": {"stop": ["一", "二", "三", "四", "五"]},
    "stop_token_ids": {"stop_token_ids": [3]},
    "include_stop_str_in_output": {"stop": "。", "include_stop_str_in_output": True},
    "ignore_eos": {"ignore_eos": True},
    "skip_special_tokens": {"skip_special_tokens": False},
    "spaces_between_special_tokens": {"spaces_between_special_tokens": False},
    "truncate_prompt_tokens": {"truncate_prompt_tokens": 4},
    "prompt_logprobs": {"prompt_logprobs": 1},
    "return_token_ids": {"return_token_ids": True},
    "return_tokens_as_token_ids": {"return_tokens_as_token_ids": True},
    "response_format: json_object": {"response_format": {"type": "json_object"}},
    "response_format: json_schema": {"response_format": FORM},
    "structured_outputs: json": {"structured_outputs": {"json": SCHEMA}},
    "structured_outputs: regex": {"structured_outputs": {"regex": "[0-9]{3}"}},
    "structured_outputs: choice": {"structured_outputs": {"choice": ["是", "否"]}},
    "structured_outputs: grammar": {"structured_outputs": {"grammar": 'root ::= "是" | "否"'}},
    "guided_json": {"guided_json": SCHEMA},
    "stream": {"stream": True},
    "stream_options: include_usage": {"stream": True, "stream_options": {"include_usage": True}},
    "stream_options: continuous_usage_stats": {
        "stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    },
    "stream, n=2": {"stream": True, "n": 2, "temperature": 0.7},
    "user": {"user": "u"},
    "priority=0": {"priority": 0},
    "request_id": {"request_id": "r"},
    "cache_salt": {"cache_salt": "s"},
    "vllm_xargs": {"vllm_xargs": {"a": 1}},
    "nulls": {"n": None, "stop": None, "seed": None, "presence_penalty": None, "logit_bias": None, "stream": None},
}  # fmt: skip
NEUTRAL: dict[str, dict[str, Any]] = {
    "metadata": {"metadata": {"a": "b"}},
    "store": {"store": False},
    "service_tier": {"service_tier": "auto"},
    "safety_identifier": {"safety_identifier": "s"},
    "prompt_cache_key": {"prompt_cache_key": "k"},
    "prompt_cache_retention": {"prompt_cache_retention": "24h"},
}
COMPLETIONS: dict[str, dict[str, Any]] = {
    "prompt: text": {},
    "prompt: texts": {"prompt": ["头痛", "发热"]},
    "prompt: tokens": {"prompt": [5, 6, 7]},
    "prompt: lists of tokens": {"prompt": [[5, 6], [7, 8]]},
    "echo": {"echo": True},
    "logprobs": {"logprobs": 5},
    "echo and logprobs": {"echo": True, "logprobs": 1, "max_tokens": 1},
    "suffix": {"suffix": "。"},
    "add_special_tokens": {"add_special_tokens": False},
}
RESPONSES: dict[str, dict[str, Any]] = {
    "input: text": {},
    "input: items": {"input": ASK},
    "instructions": {"instructions": "简短"},
    "stream": {"stream": True},
    "text.format": {"text": {"format": {"type": "json_schema", "name": "form", "schema": SCHEMA}}},
    "tools": {"tools": [{"type": "function", **FUNCTION}], "tool_choice": "none"},
    "previous_response_id": {"previous_response_id": "resp_0"},
}
MESSAGES: dict[str, dict[str, Any]] = {
    "messages": {},
    "system": {"system": "简短"},
    "stop_sequences": {"stop_sequences": ["。"]},
    "stream": {"stream": True},
    "tools": {"tools": [{"name": "lookup", "input_schema": SCHEMA}], "tool_choice": {"type": "none"}},
}
OTHERS: dict[str, tuple[str, dict[str, Any] | None]] = {
    "GET /v1/models": ("/v1/models", None),
    "GET /health": ("/health", None),
    "GET /version": ("/version", None),
    "GET /metrics": ("/metrics", None),
    "POST /tokenize: text": ("/tokenize", {"prompt": "头痛"}),
    "POST /tokenize: chat": ("/tokenize", {"messages": ASK}),
    "POST /detokenize": ("/detokenize", {"tokens": [5, 6]}),
    "POST /v1/embeddings": ("/v1/embeddings", {"input": "头痛"}),
}


def kinds() -> dict[str, tuple[str, dict[str, Any] | None]]:
    """Returns route and body of each kind of request, by name; requests without a body use GET."""
    routes: tuple[tuple[str, str, dict[str, Any], dict[str, Any]], ...] = (
        ("chat", "/v1/chat/completions", {"messages": ASK, "max_tokens": 4}, {**CHATS, **BOTH, **NEUTRAL}),
        ("completions", "/v1/completions", {"prompt": "头痛", "max_tokens": 4}, {**COMPLETIONS, **BOTH}),
        ("responses", "/v1/responses", {"input": "头痛", "max_output_tokens": 4}, RESPONSES),
        ("messages", "/v1/messages", {"messages": ASK, "max_tokens": 4}, MESSAGES),
    )
    asked = {
        f"{name}: {kind}": (route, {"model": MODEL, **base, **more})
        for name, route, base, kinds_ in routes
        for kind, more in kinds_.items()
    }
    others = {name: (path, body and {"model": MODEL, **body}) for name, (path, body) in OTHERS.items()}
    return {**asked, **others}


def outcome(client: httpx.Client, path: str, body: Mapping[str, Any] | None) -> str:
    """Sends a request; returns `yes`, or the status and the server's reason."""
    answer = client.get(path) if body is None else client.post(path, json=body)
    if answer.status_code == 200:
        failed = [line for line in answer.text.splitlines() if line.startswith(('data: {"error"', "event: error"))]
        return f"failed in the stream: {failed[0]}" if failed else "yes"
    try:
        reason = answer.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        reason = answer.text
    return f"{answer.status_code}: {' '.join(reason.split())[:160]}"


def main() -> None:
    """Sends all requests to both servers and prints the table."""
    parser = argparse.ArgumentParser(prog=PROG, description=__doc__)
    parser.add_argument("--model", required=True, metavar="DIR", help="model folder in Hugging Face format")
    parser.add_argument("--json", metavar="FILE", help="also write the responses there")
    options = parser.parse_args()
    with one_line_errors(PROG):
        folder = require_dir(options.model, "model", "name a folder in Hugging Face format")
        answers = {name: _asked(server, folder) for name, server in SERVERS.items()}
    print("| kind | bare vLLM | endpoint |\n|---|---|---|")
    for kind in kinds():
        cells = [answers[name][kind].replace("|", "\\|") for name in SERVERS]
        print(f"| {kind} | " + " | ".join(cells) + " |")
    for name, given in answers.items():
        print(f"{name}: {sum(reason == 'yes' for reason in given.values())} of {len(given)} answered")
    if options.json:
        Path(options.json).write_text(json.dumps(answers, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _asked(server: Any, folder: Path) -> dict[str, str]:
    with server(folder) as url, httpx.Client(base_url=url, timeout=120) as client:
        return {kind: outcome(client, path, body) for kind, (path, body) in kinds().items()}


if __name__ == "__main__":
    main()
