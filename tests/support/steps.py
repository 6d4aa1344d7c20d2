"""The phases of a step of PPO, one by one, on running roles; two minibatches a step."""

from __future__ import annotations

import pyarrow as pa

from actors.groups.group import joined
from actors.groups.learners import Learners
from actors.groups.responses import ResponseCollector
from actors.groups.role_groups import RoleGroups
from actors.groups.scoring import Scorers
from actors.weight_sync.publisher import Publisher
from trainers.config.algorithm import AlgorithmConfig
from trainers.rlhf.advantages import add_advantages, add_weights
from trainers.rlhf.prompts import PromptStream
from trainers.rlhf.rewards import RewardShaper, add_reward


def rollouts(roles: RoleGroups, prompts: PromptStream, publisher: Publisher, version: int) -> pa.Table:
    publisher.publish(version)
    batch = prompts.batch(version)
    table = generated(roles, prompts, batch, version)
    table = scorers(roles, prompts).score(table).join(table)
    return joined(table, learners(roles).submit_columns(table))


def generated(roles: RoleGroups, prompts: PromptStream, batch: pa.Table, version: int) -> pa.Table:
    return ResponseCollector(roles.rollout, batch, version, scorers(roles, prompts).begin(len(batch))).join()


def scorers(roles: RoleGroups, prompts: PromptStream) -> Scorers:
    return Scorers(roles.groups, roles.config.context.roles, prompts.samples, minibatches=2)


def learners(roles: RoleGroups) -> Learners:
    return Learners(roles, minibatches=2, skips_policy=False)


def with_advantages(table: pa.Table) -> pa.Table:
    algorithm = AlgorithmConfig(minibatches=2)
    table = RewardShaper(algorithm, 16).add_score(add_reward(table, {"model": 1.0}))
    return add_advantages(add_weights(table, algorithm, 16), algorithm, algorithm.kl_coef)
