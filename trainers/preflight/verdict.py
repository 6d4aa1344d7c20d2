"""Refuses a stage that does not fit its cluster, and says which nearest setting would fit."""

from __future__ import annotations

import logging

from cluster.environment import head_address
from cluster.preflight.capacity import Capacity, capacity_of, this_machine
from configs.errors import ConfigError
from trainers.config.supervised import StageConfig
from trainers.preflight.fitting import nearest, without_gpus
from trainers.preflight.needs import ShapeOf, findings, shape_in_folder

logger = logging.getLogger(__name__)


def require_machine(config: StageConfig) -> None:
    """Checks that this machine has the CPUs and GPUs of a stage, if the stage will start a cluster here.

    Takes milliseconds. Trainers call it before they read anything, and `require_fit` once the cluster is there.

    Raises:
        ConfigError: the machine has too few; the message says which nearest setting would fit.
    """
    import ray

    if head_address() is not None or ray.is_initialized():
        return
    capacity = this_machine(config.cluster.num_cpus, config.cluster.num_gpus)
    if any(
        each.level == "refused" and each.subject == "resources" for each in findings(config, capacity, shape_in_folder)
    ):
        refuse(config, capacity, shape_in_folder)


def require_fit(config: StageConfig) -> None:
    """Checks that a stage fits the cluster to which this process is connected; takes milliseconds.

    Logs the findings that are close to a limit or unknown.

    Raises:
        ConfigError: the stage does not fit; the message says what is missing, and which nearest setting would fit.
    """
    import ray

    from cluster.head import Head

    with Head(ray.get_runtime_context().gcs_address) as head:
        capacity = capacity_of(head)
    refuse(config, capacity, shape_in_folder)
    for finding in findings(config, capacity, shape_in_folder):
        if finding.level in ("tight", "unknown"):
            logger.warning("preflight: %s: %s", finding.subject, finding.text)


def refuse(config: StageConfig, capacity: Capacity, shape_of: ShapeOf) -> None:
    """Raises ConfigError for the first finding of level `refused`; findings about inputs come first."""
    refused = [finding for finding in findings(config, capacity, shape_of) if finding.level == "refused"]
    if not refused:
        return
    refused.sort(key=lambda finding: finding.subject != "inputs")
    first = refused[0]
    where = "" if first.subject == "resources" else f"{first.subject}: "
    more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
    if first.subject == "inputs":  # no setting would help
        raise ConfigError(f"{first.text}{more}")
    raise ConfigError(f"{where}{first.text}{more}; {advice(config, capacity, shape_of)}")


def advice(config: StageConfig, capacity: Capacity, shape_of: ShapeOf, disk: bool = True) -> str:
    """Returns advice for a stage that does not fit: the nearest setting that would fit, or that there is none.

    Args:
        disk: whether the setting must also fit the disk of this machine.
    """

    def fits(changed: StageConfig) -> bool:
        found = findings(changed, capacity, shape_of)
        return all(finding.level != "refused" for finding in found if disk or finding.subject != "disk")

    if not capacity.open_ended and not capacity.all_of("GPU") and (flags := without_gpus(config)):
        return f"there is no GPU: compute on CPUs with {flags}, or use a cluster with GPUs"
    found = nearest(config, fits)
    if found:
        return f"the nearest setting that would fit: {found}"
    return "no setting of the roles would fit: use a larger cluster or disk, or a smaller model"
