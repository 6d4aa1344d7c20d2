r"""Named chat templates, template files, and arguments that become part of a template."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from configs.errors import ConfigError
from data.files.records import whole_text

HUMAN: Final = "[human]:"
BOT: Final = "[bot]:"
# Reserved marks of ChiMed-GPT's format with this project's tokenizer.
RESERVED: Final = (HUMAN, BOT, "</s>", "<s>", "<pad>", "<unk>")

# ChiMed-GPT: a user's turn is `[human]:{question}\n[bot]:`, an assistant's turn is the response and the
# end-of-sequence token. A system turn comes first, on a separate line. The template rejects what `check_messages`
# rejects, so that a server that only renders the template responds with 400 to a forged turn.
CHAT_TEMPLATE: Final = (
    "{%- for message in messages -%}"
    "{%- if message['content'] is not string or message['content'] | trim == '' -%}"
    "{{- raise_exception('a turn is empty or not text') -}}{%- endif -%}"
    f"{{%- for mark in ['{HUMAN}', '{BOT}', eos_token, bos_token, pad_token, unk_token] -%}}"
    "{%- if mark and mark in message['content'] -%}"
    "{{- raise_exception('a turn contains the reserved mark ' + mark) -}}{%- endif -%}{%- endfor -%}"
    "{%- if message['role'] == 'system' and loop.first -%}{{- message['content'] + '\\n' -}}"
    "{%- elif message['role'] == 'user' and (loop.first or loop.previtem['role'] != 'user') -%}"
    f"{{{{- '{HUMAN}' + message['content'] + '\\n{BOT}' -}}}}"
    "{%- elif message['role'] == 'assistant' and not loop.first and loop.previtem['role'] == 'user' -%}"
    "{{- message['content'] + eos_token -}}"
    "{%- else -%}{{- raise_exception('turns must alternate: [system,] user, assistant, user, ...') -}}{%- endif -%}"
    "{%- endfor -%}"
)

CHATML: Final = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)

LLAMA3: Final = (
    "{{- bos_token -}}"
    "{%- for message in messages -%}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim -}}"
    "{{- '<|eot_id|>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}{%- endif -%}"
)

NAMED: Final[Mapping[str, str]] = {"chimed": CHAT_TEMPLATE, "chatml": CHATML, "llama3": LLAMA3}

_FIXED = re.compile(r"\{%- set (\w+) = ((?:(?!-%\}).)*) -%\}\n")


def read_template(given: str) -> str:
    """Returns the template that `chat.template` names.

    Args:
        given: one of `NAMED`, or the path of a Jinja file.

    Raises:
        ConfigError: `given` is neither, or the file cannot be read.
    """
    if given in NAMED:
        return NAMED[given]
    path = Path(given)
    if not path.is_file():
        raise ConfigError(
            f"chat.template {given}: is neither a named template ({', '.join(NAMED)}) nor a file; give one of these"
        )
    try:
        return whole_text(path)
    except ConfigError as error:
        raise ConfigError(f"chat.template: {error}") from error


def with_arguments(template: str, arguments: Mapping[str, str | bool | int | float]) -> str:
    """Sets variables at the top of a template, as `{%- set NAME = VALUE -%}` lines.

    Every renderer then uses the values without passing them as arguments. Lines of an earlier call are replaced.

    Raises:
        ConfigError: the template does not use one of the variables.
    """
    fixed: dict[str, str] = {}
    while found := _FIXED.match(template):
        fixed[found[1]], template = found[2], template[found.end() :]
    for name, value in arguments.items():
        if not re.search(rf"\b{name}\b", template):
            raise ConfigError(f"chat.arguments.{name}: the chat template has no variable {name}; leave it out")
        fixed[name] = str(value).lower() if isinstance(value, bool) else repr(value)
    return "".join(f"{{%- set {name} = {value} -%}}\n" for name, value in fixed.items()) + template


def variables_of(template: str) -> frozenset[str]:
    """Returns the names that a template reads and does not set itself, such as `tools` or `enable_thinking`."""
    from transformers.utils.chat_template_utils import _get_template_variables

    names: frozenset[str] = _get_template_variables(template)
    return names
