"""What Prometheus hears of the endpoint, through Ray's metrics."""

from __future__ import annotations

from ray.util.metrics import Counter, Gauge, Histogram

SECONDS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0]


class EndpointMetrics:
    """Requests, tokens, times and requests under way of one gateway."""

    def __init__(self) -> None:
        self.requests = Counter(
            "chimed_serve_requests_total", "requests that were answered", ("route", "model", "status")
        )
        self.tokens = Counter("chimed_serve_tokens_total", "tokens read and written", ("model", "kind"))
        self.first_token_seconds = Histogram(
            "chimed_serve_time_to_first_token_seconds",
            "from a request to its answer's first tokens",
            SECONDS,
            ("model",),
        )
        self.seconds = Histogram(
            "chimed_serve_request_seconds", "from a request to its answer's end", SECONDS, ("route", "model")
        )
        self.under_way = Gauge("chimed_serve_queue", "requests accepted and not yet answered")
