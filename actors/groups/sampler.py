"""Samples responses to batches of prompts for rejection sampling, and scores them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa
import ray

from actors.groups.batching import even_shares
from actors.groups.group import ColumnsInFlight
from actors.groups.role_groups import RoleGroups, RoleGroupsConfig
from actors.groups.scoring import REWARDING, Samples, Scorers


class Sampler:
    """Engines and the roles that compute rewards, for one model.

    A context manager; `stop` releases the resources, e.g. for training.
    """

    def __init__(self, config: RoleGroupsConfig, version: int, samples: Samples) -> None:
        """Starts the roles. Engines load the weights of `config.context.model`, which count as version `version`.

        Args:
            config: settings of the roles.
            version: version number of the weights.
            samples: converts rows to the samples that reward functions take.

        Raises:
            PlacementError: the cluster did not provide the resources within `start_timeout_s` of `config`; the message
                names the roles.
            RoleError: a role's process died or did not load its model within `call_timeout_s` of `config`; the message
                names the role.
        """
        self._roles, self._version = RoleGroups(config), version
        self._scorers = Scorers(self._roles.groups, config.context.roles, samples)
        try:
            self._roles.rollout.call("set_version", version)
        except BaseException:
            self.stop()
            raise

    def samples(self, batches: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Yields each batch of prompts, in order, with the rollout's columns and one `reward_NAME` column per source.

        The engines already generate the next batch while one is scored and while the caller uses it.
        """
        pending: tuple[ColumnsInFlight, pa.Table] | None = None
        for prompts in batches:
            shares = even_shares(len(prompts), self._roles.rollout.ranks)
            responses = ColumnsInFlight(self._roles.rollout, "generate", ray.put(prompts), shares, self._version)
            if pending is not None:
                yield self._scored(*pending)
            pending = responses, prompts
        if pending is not None:
            yield self._scored(*pending)

    def stop(self) -> None:
        """Stops all processes and releases the placement groups."""
        self._roles.stop()

    def __enter__(self) -> Sampler:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _scored(self, responses: ColumnsInFlight, prompts: pa.Table) -> pa.Table:
        table = responses.join(prompts)
        return self._scorers.score(table, REWARDING).join(table)
