"""Chat templates that behave like those of known model families, each with a byte-level tokenizer that has its tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from data.chat.templates import CHAT_TEMPLATE, CHATML

LLAMA31 = """{{- bos_token -}}
{%- if date_string is not defined -%}{%- set date_string = strftime_now('%d %b %Y') -%}{%- endif -%}
{%- if messages[0]['role'] == 'system' -%}
  {%- set system = messages[0]['content'] | trim -%}{%- set turns = messages[1:] -%}
{%- else -%}{%- set system = '' -%}{%- set turns = messages -%}{%- endif -%}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\nToday Date: ' + date_string + '\\n\\n' + system + '<|eot_id|>' -}}
{%- for turn in turns -%}
{{- '<|start_header_id|>' + turn['role'] + '<|end_header_id|>\\n\\n' + turn['content'] | trim + '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}{%- endif -%}"""

# A system turn is written into the user's turn, if that is the last of the chat.
MISTRAL = """{%- if messages[0]['role'] == 'system' -%}
  {%- set system = messages[0]['content'] -%}{%- set turns = messages[1:] -%}
{%- else -%}{%- set turns = messages -%}{%- endif -%}
{{- bos_token -}}
{%- for turn in turns -%}
{%- if turn['role'] == 'user' and loop.last and system is defined -%}
{{- '[INST] ' + system + '\\n\\n' + turn['content'] + '[/INST]' -}}
{%- elif turn['role'] == 'user' -%}{{- '[INST] ' + turn['content'] + '[/INST]' -}}
{%- else -%}{{- ' ' + turn['content'] + eos_token -}}{%- endif -%}
{%- endfor -%}"""

GEMMA = """{{- bos_token -}}
{%- if messages[0]['role'] == 'system' -%}{{- raise_exception('System role not supported') -}}{%- endif -%}
{%- for turn in messages -%}
{%- set role = 'model' if turn['role'] == 'assistant' else turn['role'] -%}
{{- '<start_of_turn>' + role + '\\n' + turn['content'] | trim + '<end_of_turn>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}"""

# A turn ends where the next one begins.
GLM4 = """{{- '[gMASK]<sop>' -}}
{%- for turn in messages -%}
{%- set role = 'observation' if turn['role'] == 'tool' else turn['role'] -%}
{{- '<|' + role + '|>\\n' + turn['content'] -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"""

# Reasoning is kept in turns after the last user's only, where an empty one is written if there is none.
QWEN3 = """{%- set last = namespace(user=0) -%}
{%- for turn in messages -%}{%- if turn['role'] == 'user' -%}{%- set last.user = loop.index0 -%}{%- endif -%}{%- endfor -%}
{%- for turn in messages -%}
{%- set content = turn['content'] -%}{%- set thought = '' -%}
{%- if turn['role'] == 'assistant' and '</think>' in content -%}
  {%- set thought = content.split('</think>')[0].split('<think>')[-1].strip('\\n') -%}
  {%- set content = content.split('</think>')[-1].lstrip('\\n') -%}
{%- endif -%}
{{- '<|im_start|>' + turn['role'] + '\\n' -}}
{%- if turn['role'] == 'assistant' and loop.index0 > last.user -%}
{{- '<think>\\n' + thought + '\\n</think>\\n\\n' -}}{%- endif -%}
{{- content + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}
{%- if enable_thinking is defined and enable_thinking is false -%}{{- '<think>\\n\\n</think>\\n\\n' -}}{%- endif -%}
{%- endif -%}"""

MARKED = """{%- for turn in messages -%}
{{- '<|im_start|>' + turn['role'] + '\\n' -}}
{%- if turn['role'] == 'assistant' -%}{% generation %}{{- turn['content'] -}}{% endgeneration %}
{%- else -%}{{- turn['content'] -}}{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"""


def byte_tokenizer(
    special: Sequence[str],
    template: str | None,
    eos: str,
    bos: str | None = None,
    plain: Sequence[str] = (),
    merges: Sequence[tuple[str, str]] = (),
) -> PreTrainedTokenizerFast:
    """A tokenizer without pad token: special tokens, further added tokens, bytes, and merges of them."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*special, *plain, *letters, *("".join(pair) for pair in merges)]
    inner = Tokenizer(BPE({piece: number for number, piece in enumerate(pieces)}, list(merges)))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(one, normalized=False, special=True) for one in special])
    inner.add_tokens([AddedToken(one, normalized=False, special=False) for one in plain])
    untyped: Any = PreTrainedTokenizerFast
    made: PreTrainedTokenizerFast = untyped(
        tokenizer_object=inner, eos_token=eos, bos_token=bos, clean_up_tokenization_spaces=False
    )
    made.chat_template = template
    return made


@dataclass(frozen=True)
class Family:
    """A chat format, and what is known of it."""

    tokenizer: PreTrainedTokenizerFast
    ends: tuple[str, ...]
    turn: Callable[[str, bool], str]
    """What is trained of a turn: of its content, and whether other turns follow."""
    system: bool = True
    """Whether chats with a system turn can be trained on."""


LLAMA_TOKENS = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
CHATML_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
GLM_TOKENS = ("<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")


def families() -> dict[str, Family]:
    """Every format that renders earlier turns alike whatever follows."""
    dated = "{%- set date_string = '26 Jul 2024' -%}\n" + LLAMA31
    return {
        "chimed": Family(
            byte_tokenizer(["<unk>", "<s>", "</s>"], CHAT_TEMPLATE, "</s>", "<s>", ["[human]:", "[bot]:"]),
            ("</s>",),
            lambda content, _: f"{content}</s>",
        ),
        "chimed in plain text": Family(
            byte_tokenizer(["<s>", "</s>"], CHAT_TEMPLATE, "</s>", "<s>"),
            ("</s>",),
            lambda content, _: f"{content}</s>",
        ),
        "chatml": Family(
            byte_tokenizer(CHATML_TOKENS, CHATML, "<|endoftext|>"),
            ("<|im_end|>",),
            lambda content, _: f"{content}<|im_end|>",
        ),
        "marked": Family(
            byte_tokenizer(CHATML_TOKENS, MARKED, "<|im_end|>"),
            ("<|im_end|>",),
            lambda content, _: f"{content}<|im_end|>",
        ),
        "llama 3.1": Family(
            byte_tokenizer(LLAMA_TOKENS, dated, "<|end_of_text|>", "<|begin_of_text|>"),
            ("<|eot_id|>",),
            lambda content, _: f"{content.strip()}<|eot_id|>",
        ),
        "mistral": Family(
            byte_tokenizer(["<s>", "</s>", "[INST]", "[/INST]"], MISTRAL, "</s>", "<s>"),
            ("</s>",),
            lambda content, _: f" {content}</s>",
            system=False,
        ),
        "gemma": Family(
            byte_tokenizer(["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"], GEMMA, "<eos>", "<bos>"),
            ("<end_of_turn>",),
            lambda content, _: f"{content.strip()}<end_of_turn>",
            system=False,
        ),
        "glm 4": Family(
            byte_tokenizer(GLM_TOKENS, GLM4, "<|endoftext|>"),
            ("<|user|>", "<|observation|>"),
            lambda content, followed: f"\n{content}" + ("<|user|>" if followed else ""),
        ),
    }


def qwen3() -> PreTrainedTokenizerFast:
    """A tokenizer with Qwen3's format, which drops earlier reasoning."""
    return byte_tokenizer(CHATML_TOKENS, QWEN3, "<|im_end|>", plain=["<think>", "</think>"])


def tiny_model(tokenizer: Any, folder: Path, **generation: Any) -> Path:
    """A model with random weights and this tokenizer in `folder`, saved by Transformers alone."""
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), eos_token_id=0, **shape)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if generation:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


def chat(*contents: str, system: str | None = None) -> list[dict[str, str]]:
    """User and assistant in turn, after a system turn if one is given."""
    roles = ("user", "assistant")
    turns = [{"role": roles[index % 2], "content": content} for index, content in enumerate(contents)]
    return [{"role": "system", "content": system}, *turns] if system else turns


def trained(tokenizer: Any, ids: Sequence[int], mask: Sequence[int]) -> list[str]:
    """Each run of tokens that are trained on, as text."""
    runs: list[list[int]] = []
    for before, (id, one) in zip([0, *mask], zip(ids, mask, strict=True), strict=False):
        if one and not before:
            runs.append([])
        if one:
            runs[-1].append(id)
    return [tokenizer.decode(run) for run in runs]
