"""What Prometheus is told: counted by every worker, read as one at /metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

REQUESTS = Counter("plumbline_requests", "Requests", ["route", "status"])
PICTURES = Counter("plumbline_pictures", "Pictures answered", ["version", "role", "label"])
UNSURE = Counter("plumbline_unsure", "Pictures that the service was unsure of", ["version"])
REFUSED = Counter("plumbline_refused", "Files that were no picture that could be used")
CACHED = Counter("plumbline_cached", "Pictures answered from the cache")
BUSY = Counter("plumbline_busy", "Requests refused because the queue was full")
SHADOWS = Counter("plumbline_shadow", "Pictures that the challenger scored silently, or left out under load", ["what"])
LOST = Counter("plumbline_records_lost", "Records of answers that could not be kept")
SECONDS = Histogram(
    "plumbline_request_seconds",
    "From the first byte of a request to its answer",
    ["route"],
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
)
BATCH = Histogram("plumbline_batch_pictures", "Pictures scored at a time", buckets=(1, 2, 4, 8, 16, 32, 64))
INSIDE = Gauge("plumbline_inside", "Pictures inside, of all workers", multiprocess_mode="livesum")
VERSION = Gauge("plumbline_version", "The champion's version, 0 for none", multiprocess_mode="livemax")
SWAPS = Counter("plumbline_swaps", "Times that a worker took up another champion")


def text() -> bytes:
    """Return the figures of all workers, in Prometheus' text format."""
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
