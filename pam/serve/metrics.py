"""What /metrics reports, in the format of Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

LATENCY = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
BATCHES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counters of one server, in a registry of its own."""

    def __init__(self):
        self.registry = CollectorRegistry()
        named = {"registry": self.registry}
        self.requests = Counter(
            "pam_requests", "Requests by path and HTTP status.", ["path", "status"], **named
        )
        self.latency = Histogram(
            "pam_request_seconds", "Time of a request.", ["path"], buckets=LATENCY, **named
        )
        self.audio = Counter("pam_audio_seconds", "Audio that was answered.", **named)
        self.tokens = Counter("pam_tokens", "Tokens of answers.", **named)
        self.waiting = Gauge("pam_waiting", "Requests that wait for the model.", **named)
        self.batch = Histogram(
            "pam_batch_size", "Requests that were answered together.", buckets=BATCHES, **named
        )
