"""The role `reward_function`: rewards from Python functions and HTTP endpoints instead of a reward model."""

from __future__ import annotations

import pyarrow as pa

from actors.config import RewardFunctionConfig
from actors.rewards.function import PythonReward
from actors.rewards.http import RemoteReward
from actors.rewards.sample import RewardFunction, Sample
from actors.roles.worker import Worker


def sources_of(config: RewardFunctionConfig) -> list[RewardFunction]:
    """Creates all reward sources of `config`: imports the functions and sets up the endpoints.

    Raises:
        ConfigError: a function or endpoint is not valid.
    """
    functions = [PythonReward(name, source) for name, source in config.functions.items()]
    return [*functions, *(RemoteReward(name, source) for name, source in config.endpoints.items())]


class RewardFunctionWorker(Worker):
    """One process with all reward sources, so that a function that hangs or crashes affects no other process."""

    def setup(self, config: RewardFunctionConfig) -> None:
        """Creates the reward sources and imports the functions."""
        self.sources = sources_of(config)

    def score(self, samples: list[Sample]) -> pa.Table:
        """Scores `samples`: one column `reward_NAME` per source.

        Raises:
            RewardFunctionError: a source failed; the message names the source and the sample.
        """
        return pa.table(
            {f"reward_{source.name}": pa.array(source.score(samples), pa.float32()) for source in self.sources}
        )
