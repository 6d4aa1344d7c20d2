"""Downloads a model on the second node of a Ray of two nodes, and prints the folder that a task finds there.

A program of its own, since a process has one Ray and the tests' is another. Argument: the model's name. The second node's
cache is in `$SECOND_HF_HOME`.
"""

from __future__ import annotations

import os
import sys

import ray
from ray.cluster_utils import Cluster

from actors.model_folder.nodes import fetch
from configs.errors import one_line_errors

NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}


def main(name: str) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    try:
        cluster.add_node(**NODE, env_vars={"HF_HOME": os.environ["SECOND_HF_HOME"]})
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        with one_line_errors("two_hub_nodes"):
            fetch([name])
            fetch([name], same_folder=True)
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])
