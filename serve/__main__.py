"""python -m serve model=DIR [key=value ...]: runs the OpenAI-compatible endpoint until it is stopped.

    python -m serve model=runs/ppo/model                                  http://127.0.0.1:8000, until Ctrl-C
    python -m serve model=sft=runs/sft/model,ppo=runs/ppo/model --port 8001
    python -m serve model=runs/ppo/model weights=runs/longer/model        new weights for the running endpoint

The command joins the Ray cluster of RAY_ADDRESS, or starts one that listens on 127.0.0.1 only; checks that the port is
free and that the cluster has enough CPUs, GPUs, and memory; and logs what it is waiting for. If it is run again with
other weights while the endpoint is running, it changes the weights of that endpoint. Ctrl-C or SIGTERM shuts the
endpoint down. Exit status: 0; 1 if the start or the change of weights failed; 2 for an invalid argument.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from configs.arguments import Parser
from configs.errors import ConfigError, RunError, one_line_errors
from configs.help import settings_text
from configs.logs import configure
from configs.program import program
from serve.config import ServeConfig, named_folders, read_arguments

logger = logging.getLogger(__name__)

PROG = program("serve")
_LOOK_S = 1.0
_PORTS = 65_535


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the endpoint until it is stopped, or changes the weights of a running endpoint."""
    options = _parse(argv)
    configure("serve")
    with one_line_errors(PROG):
        config = read_arguments(_arguments(options.settings))
        for argument, text in (("model", config.model), ("reward_model", config.reward_model)):
            if text:
                named_folders(text, argument)  # rejects names that a route cannot contain
        _silence()
        from serve.starting.port import is_taken, require_free_port
        from serve.starting.running import find, require_only_new_weights

        if is_taken(options.host, options.port) and (found := find(options.port)):
            address, endpoint = found
            require_only_new_weights(endpoint, config)
            change_weights(address, options.port, config.weights, options.timeout)
            return
        require_free_port(options.host, options.port)
        serve_until_stopped(config, options)


def _silence() -> None:
    """Suppresses the startup messages of Ray, Serve, and vLLM. Serve's warnings and all errors are still logged."""
    import ray  # noqa: F401 - the import sets logger levels, so it must come first

    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.serve.ray").setLevel(logging.WARNING)  # the parent of Ray Serve LLM's loggers
    # A filter, because Serve resets the level of its logger when it starts, but keeps filters.
    logging.getLogger("ray.serve").addFilter(lambda record: record.levelno >= logging.WARNING)
    # When Serve shuts down, it kills its controller in the middle of this call, which Ray then reports.
    logging.getLogger("cluster.ray_internals").addFilter(
        lambda record: "ServeController.graceful_shutdown" not in record.getMessage()
    )


def serve_until_stopped(config: ServeConfig, options: argparse.Namespace) -> None:
    """Starts the endpoint, and shuts it down on SIGINT or SIGTERM."""
    from cluster.connect import connect
    from cluster.environment import head_address
    from cluster.head import Head
    from cluster.preflight.capacity import capacity_of, this_machine
    from serve.starting.needs import require_room

    joins = head_address() is not None
    if not joins:
        require_room(config, this_machine(None, None))
    logger.info("%s a Ray cluster", "joins" if joins else "starts")
    with connect(insecure=options.insecure):
        import ray

        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        with Head(ray.get_runtime_context().gcs_address) as head:
            if joins:
                require_room(config, capacity_of(head))
            _Server(config, options, head, stop).run()


class _Server:
    """The endpoint on a cluster that this process has joined."""

    def __init__(self, config: ServeConfig, options: argparse.Namespace, head: Any, stop: threading.Event) -> None:
        from serve.starting.running import Endpoint, Record

        self._config, self._options, self._stop = config, options, stop
        self._version = uuid.uuid4().hex
        self._record = Record(head, options.port)
        self._endpoint = Endpoint(options.port, config.model_dump(mode="json"))

    def run(self) -> None:
        """Deploys the endpoint, then keeps its record and applies requests for new weights until it is stopped."""
        from ray import serve

        from serve.starting.startup import Stopped

        require_no_serve()
        try:
            serve.start(http_options={"host": self._options.host, "port": self._options.port})
            seconds = self._deploy(self._config)
            url = f"http://{self._options.host}:{self._options.port}"
            print(
                f"{PROG}: ready after {seconds:.0f} s at {url} (chat page; OpenAI's API at {url}/v1); press Ctrl-C to stop"
            )
            sys.stdout.flush()
            while not self._stop.is_set():
                self._record.write(self._endpoint)
                self._change_weights_if_asked()
                self._stop.wait(_LOOK_S)
        except Stopped:
            pass
        finally:
            logger.info("shutting down")
            serve.shutdown()

    def _deploy(self, config: ServeConfig) -> float:
        from ray import serve

        from serve.app import application
        from serve.starting.startup import APPLICATION, wait_until_running

        target = serve.RunTarget(application(config, self._version), name=APPLICATION, route_prefix="/")
        serve.run_many([target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)
        return wait_until_running(self._options.timeout, self._stop.is_set)

    def _change_weights_if_asked(self) -> None:
        change = self._record.asked()
        if change is None or change.done:
            return
        config = self._config.model_copy(update={"weights": change.weights})
        try:
            seconds = self._deploy(config)
        except (ConfigError, RunError) as error:
            self._record.ask(replace(change, done=True, error=str(error)))
            logger.warning("weights=%s refused: %s", change.weights, error)
            return
        self._config, self._endpoint.settings = config, config.model_dump(mode="json")
        self._record.write(self._endpoint)
        self._record.ask(replace(change, done=True))
        logger.info("weights=%s after %.0f s", change.weights, seconds)


def require_no_serve() -> None:
    """Rejects a cluster where Serve is already running: its port and applications belong to another command.

    Raises:
        ConfigError: Serve is running in the cluster.
    """
    import ray
    from ray import serve

    try:
        ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
    except ValueError:
        return
    names = ", ".join(serve.status().applications) or "no application"
    raise ConfigError(
        f"Ray Serve runs already in this cluster ({names}): update it with `serve deploy`, or stop it with `serve shutdown`"
    )


def change_weights(address: str, port: int, weights: str, timeout_s: float) -> None:
    """Requests new weights from the endpoint at `port`, and waits until it has loaded them.

    Args:
        address: address of the cluster's head.
        port: the endpoint's TCP port.
        weights: the new value of the setting `weights`.
        timeout_s: longest wait, in seconds.

    Raises:
        RunError: the endpoint rejects the weights or has not loaded them after `timeout_s` seconds, or another command
            has requested other weights in the meantime.
    """
    from cluster.head import Head
    from serve.starting.running import Change, Record

    with Head(address) as head:
        record, change = Record(head, port), Change(weights)
        record.ask(change)
        deadline = time.monotonic() + timeout_s
        while True:
            reply = record.asked()
            if reply and reply.id != change.id:
                raise RunError("another command has requested different weights: run this command again to load these")
            if reply and reply.done:
                break
            if time.monotonic() > deadline:
                raise RunError(f"the endpoint at port {port} did not load weights={weights} within {timeout_s:g} s")
            time.sleep(_LOOK_S)
    if reply.error:
        raise RunError(f"the endpoint at port {port} rejected weights={weights}: {reply.error}")
    print(f"{PROG}: the endpoint at port {port} now has weights={weights or 'its own'}")


def _arguments(settings: Sequence[str]) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError(f"'{text}' is not key=value: give e.g. model={text}; --help lists the keys")
        if key in arguments:
            raise ConfigError(f"{key}= is given twice: keep one of the two")
        arguments[key] = value
    known = all(key.split(".")[0] in ServeConfig.model_fields for key in arguments)  # else a misspelled key is reported
    if "model" not in arguments and known:
        raise ConfigError("model=DIR is required: give the folder of a model, e.g. model=runs/ppo/model")
    return arguments


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog=PROG,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(["settings, as key=value:", *settings_text("endpoint", ServeConfig, prefix="")]),
    )
    parser.add_argument(
        "settings", nargs="*", metavar="key=value", help="a setting from the list below; model=DIR is required"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for all (default: 127.0.0.1)"
    )
    parser.add_argument("--port", type=_port, default=8000, help="TCP port (default: 8000)")
    parser.add_argument(
        "--timeout", type=float, default=900.0, metavar="SECONDS", help="startup timeout (default: 900)"
    )
    parser.add_argument(
        "--insecure", action="store_true", help="join a Ray cluster that other machines can reach without a token"
    )
    return parser.parse_intermixed_args(argv)


def _port(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= _PORTS:
        raise argparse.ArgumentTypeError(f"{text} is not a port: give a number from 1 to {_PORTS}")
    return int(text)


if __name__ == "__main__":
    main()
