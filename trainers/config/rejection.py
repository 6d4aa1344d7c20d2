"""Settings of rejection-sampling fine-tuning."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from actors.config import RolloutConfig
from actors.groups.colocation import Colocate, PlacementGroupSpec, placement_group_specs, require_memory_share
from configs.base import Section
from trainers.config.rlhf import PromptData, RewardedConfig, require_room
from trainers.config.supervised import HeldoutData, TrainingConfig


class SelectionConfig(Section):
    """Which responses of a round are trained on: never truncated ones or ones that the chat format cannot express."""

    by: Literal["per_prompt", "global_top_k"] = Field(
        "per_prompt",
        description="per_prompt: the best response to each prompt; global_top_k: the k best of all responses",
    )
    k: int | None = Field(None, ge=1, description="number of responses that global_top_k selects per round")
    one_per_prompt: bool = Field(True, description="global_top_k: select at most one response per prompt")
    min_reward: float | None = Field(None, description="responses with a lower reward are never selected")

    @model_validator(mode="after")
    def _only_what_is_used(self) -> SelectionConfig:
        if self.by == "global_top_k" and self.k is None:
            raise ValueError(
                "selection.by global_top_k requires selection.k: set it to the number of responses to select per round"
            )
        if self.by == "per_prompt" and self.k is not None:
            raise ValueError(
                "selection.k is only for selection.by global_top_k: remove selection.k, or set selection.by to "
                "global_top_k"
            )
        if self.by == "per_prompt" and not self.one_per_prompt:
            raise ValueError(
                "selection.one_per_prompt false is only for selection.by global_top_k: remove it, or set "
                "selection.by to global_top_k"
            )
        return self


class FineTuneConfig(TrainingConfig):
    """The supervised fine-tuning of each round."""

    data: HeldoutData


class RejectionConfig(RewardedConfig):
    """Rejection-sampling fine-tuning: sample N responses to every prompt, and fine-tune on those of highest reward."""

    recipe_key: ClassVar[str] = "rejection"

    model: str = Field(description="model to start from: a folder in Hugging Face format or a Hub id")
    prompts: PromptData
    rounds: int = Field(1, ge=1, description="number of rounds; each generates, selects, and fine-tunes")
    prompts_per_round: int | None = Field(
        None,
        ge=1,
        description="prompts used per round, in an order that continues from round to round; null: all prompts",
    )
    prompts_per_step: int = Field(
        128, ge=1, description="prompts for which responses are generated, scored, and written to the journal at a time"
    )
    samples_per_prompt: int = Field(4, ge=1, description="responses per prompt")
    rollout: RolloutConfig = RolloutConfig()
    colocate: Colocate = Field(
        "none",
        description="whether the roles that generate and score share a placement group and its CPUs and GPUs: none "
        "or all",
    )
    selection: SelectionConfig = SelectionConfig()
    replay: tuple[str, ...] = Field(
        (), description="SFT tables that are mixed into the fine-tuning data against catastrophic forgetting"
    )
    replay_share: float = Field(
        0.0, ge=0, lt=1, description="fraction of the fine-tuning rows that comes from `replay`"
    )
    from_start: bool = Field(
        False,
        description="fine-tune the starting model on the selected responses of all rounds so far, instead of the "
        "previous round's model on those of the current round",
    )
    sft: FineTuneConfig
    max_failures: int = Field(
        3, ge=0, description="how many times lost processes of roles are replaced before the run fails"
    )

    @property
    def roles(self) -> dict[str, Any]:
        """The settings of every role that takes part in sampling, by role."""
        wanted = {"rollout": self.rollout, **self.reward_roles}
        return {role: settings for role, settings in wanted.items() if settings is not None}

    @property
    def placement_groups(self) -> list[PlacementGroupSpec]:
        """The placement groups of the roles that take part in sampling."""
        return placement_group_specs(self.colocate, {role: settings.placement for role, settings in self.roles.items()})

    @model_validator(mode="after")
    def _roles_fit_together(self) -> RejectionConfig:
        for spec in self.placement_groups:
            require_memory_share(spec, self.rollout)
        return self

    @model_validator(mode="after")
    def _replay_has_share(self) -> RejectionConfig:
        if bool(self.replay) != (self.replay_share > 0):
            raise ValueError("replay and replay_share require each other: set both or neither")
        return self

    @model_validator(mode="after")
    def _prompt_and_answer_fit(self) -> RejectionConfig:
        require_room(self.prompts, self.rollout, "rollout.engine.max_model_len", self.rollout.engine.max_model_len)
        require_room(self.prompts, self.rollout, "sft.data.max_tokens", self.sft.data.max_tokens)
        return self
