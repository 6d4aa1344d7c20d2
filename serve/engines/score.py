"""The deployment that scores conversations with the reward model."""

from __future__ import annotations

import asyncio
from typing import Any

import pyarrow as pa

from actors.config import FrozenRoleConfig
from actors.groups.batching import balanced_plan, rows_of
from actors.model_folder.folders import ModelFolder
from actors.precision import Precision
from actors.roles.reward import Reward
from data.chat import chat_format
from data.tables import DataError, column_values
from serve.replica import OnNodeAddress
from serve.replies import Refusal

BATCH_TOKENS = 8192


class Scorer(OnNodeAddress):
    """The reward model behind /v1/score. It uses PPO's reward role, so its scores equal those in training."""

    def __init__(self, folder: str, threads: int, dtype: Precision) -> None:
        model = ModelFolder(folder, "reward_model")
        self._tokenizer, self._context = model.tokenizer, model.context
        self._role = Reward(threads)
        self._role.setup(FrozenRoleConfig(model=str(model.path), dtype=dtype))
        self._lock = asyncio.Lock()  # one forward pass at a time, because passes share the CPU threads

    async def score(self, conversations: list[list[dict[str, str]]], cut_off: list[bool]) -> dict[str, Any] | Refusal:
        """Scores conversations.

        Args:
            conversations: chats, each ending with the assistant's turn to score.
            cut_off: for each conversation, whether its last turn was truncated and so has no end-of-turn token.

        Returns:
            `{"scores": one float per conversation, in order, "tokens": number of tokens read}`, or a Refusal if a
            conversation is invalid.
        """
        rows = []
        for index, (messages, cut) in enumerate(zip(conversations, cut_off, strict=True)):
            try:
                rows.append(self._encode(messages, cut))
            except DataError as error:
                return Refusal(400, f"conversations.{index}: {error}", f"conversations.{index}")
        async with self._lock:
            scores = await asyncio.to_thread(self._scores, rows)
        return {"scores": scores, "tokens": sum(len(prompt) + len(answer) for prompt, answer in rows)}

    def _encode(self, messages: list[dict[str, str]], cut: bool) -> tuple[list[int], list[int]]:
        prompt, answer = chat_format(self._tokenizer).response(messages)
        if cut:
            answer = answer[:-1]
        if len(prompt) + len(answer) > self._context:
            raise DataError(
                f"has {len(prompt) + len(answer)} tokens, and the reward model's context is {self._context}"
            )
        return prompt, answer

    def _scores(self, rows: list[tuple[list[int], list[int]]]) -> list[float]:
        table = pa.table(
            {
                "prompt": pa.array([prompt for prompt, _ in rows], pa.list_(pa.int32())),
                "response": pa.array([answer for _, answer in rows], pa.list_(pa.int32())),
            }
        )
        plan = balanced_plan([len(prompt) + len(answer) for prompt, answer in rows], 1, BATCH_TOKENS)[0]
        scored = column_values(self._role.add_columns(table, plan), "reward_model")
        scores = [0.0] * len(rows)
        for row, value in zip(rows_of(plan), scored, strict=True):
            scores[row] = value
        return scores

    async def check_health(self) -> None:
        """Reports to Serve, which calls it periodically, that the replica is healthy. A replica that responds is."""
