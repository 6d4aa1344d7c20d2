"""Request and response bodies of reward endpoints, in two forms.

SAMPLES         {"samples": [Sample, ...]}  ->  {"rewards": [number, ...]}
CONVERSATIONS   {"conversations": [[message, ...], ...], "cut_off": [bool, ...]}
                ->  {"data": [{"index": 0, "score": number}, ...]}: the reward model behind serve's /v1/score
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from actors.rewards.sample import RewardFunctionError, Sample, describe


@dataclass(frozen=True)
class Form:
    """One form of request and response bodies."""

    write: Callable[[Sequence[Sample]], dict[str, Any]]
    read: Callable[[Mapping[str, Any]], object]
    """Extracts the rewards from a response; raises LookupError or TypeError if it has another form."""
    answer: str
    """Example of a response, for messages."""

    def encode(self, where: str, samples: Sequence[Sample]) -> bytes:
        """Returns the request body for `samples`.

        Raises:
            RewardFunctionError: a value cannot be represented in JSON; the message names its column and sample.
        """
        try:
            return _json(self.write(samples))
        except (TypeError, ValueError) as error:
            raise RewardFunctionError(f"{where}: {_unsendable(samples)} cannot be sent as JSON ({error})") from error


def _write_samples(samples: Sequence[Sample]) -> dict[str, Any]:
    return {"samples": list(samples)}


def _read_rewards(reply: Mapping[str, Any]) -> object:
    return reply["rewards"]


def _write_conversations(samples: Sequence[Sample]) -> dict[str, Any]:
    return {
        "conversations": [
            [*sample["prompt"], {"role": "assistant", "content": sample["response"]}] for sample in samples
        ],
        "cut_off": [not sample["finished"] for sample in samples],
    }


def _read_scores(reply: Mapping[str, Any]) -> object:
    items = reply["data"]
    if [item["index"] for item in items] != list(range(len(items))):
        raise LookupError("index")
    return [item["score"] for item in items]


SAMPLES: Final = Form(_write_samples, _read_rewards, '{"rewards": [...]}')
CONVERSATIONS: Final = Form(_write_conversations, _read_scores, '{"data": [{"index": 0, "score": ...}, ...]}')


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


def _unsendable(samples: Sequence[Sample]) -> str:
    """Describes the first value that cannot be represented in JSON by its column and its sample."""
    for sample in samples:
        for name, value in {**sample, **sample["row"]}.items():
            try:
                _json(value if name != "row" else None)
            except (TypeError, ValueError):
                return f"'{name}' of {describe([sample])}"
    return describe(samples)
