"""python -m benchmarks.serving.endpoint DIR PORT: serves the model as `m` until SIGTERM, for benchmarks.serving."""

from __future__ import annotations

import signal
import sys
import threading

from ray import serve

from cluster.connect import connect
from serve.app import build


def main() -> None:
    """Serves until SIGTERM."""
    folder, port = sys.argv[1:]
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    with connect(num_cpus=4):
        serve.start(http_options={"host": "127.0.0.1", "port": int(port)})
        serve.run(build({"model": f"m={folder}"}))
        ended.wait()
        serve.shutdown()


if __name__ == "__main__":
    main()
