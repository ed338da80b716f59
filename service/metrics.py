"""What a scrape of /metrics shows: vLLM's names where it has them, and a few of our own."""

from collections.abc import Iterator
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from agent.engine import EngineStats
from store.records import FinishReason

FIRST_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
NEXT_SECONDS = (0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0)
WRITE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 1.0)
WHOLE_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
GAUGES = (
    ("vllm:num_requests_running", "Requests in the batch.", "num_running"),
    ("vllm:num_requests_waiting", "Requests in the queue.", "num_waiting"),
    ("vllm:kv_cache_usage_perc", "Share of the key-value cache in use, 0 to 1.", "cache_usage"),
)
COUNTERS = (
    ("vllm:prompt_tokens", "Prompt tokens of answered requests.", "prompt_tokens"),
    ("vllm:generation_tokens", "Tokens generated.", "generated_tokens"),
    ("vllm:prefix_cache_queries", "Prompt tokens looked up in the cache.", "prefix_queries"),
    ("vllm:prefix_cache_hits", "Of these, found.", "prefix_hits"),
    ("vllm:num_preemptions", "Requests that gave up their place for a while.", "num_preemptions"),
    ("honed:engine_busy_seconds", "Time the engine spent computing.", "busy_seconds"),
)


class Served(Protocol):
    """Where the engines' figures come from."""

    num_swaps: int
    num_cut: int

    def stats(self) -> EngineStats: ...


class Metrics:
    """One registry of one daemon. Thread-safe."""

    def __init__(self, served: Served, model_name: str, *, device: str, weights: str) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Engines(served, model_name))
        self._labels = {"model_name": model_name}
        self._first = self._histogram("vllm:time_to_first_token_seconds", "Time to the first token.", FIRST_SECONDS)
        self._next = self._histogram("vllm:inter_token_latency_seconds", "Time between tokens.", NEXT_SECONDS)
        self._whole = self._histogram("vllm:e2e_request_latency_seconds", "Time of a whole request.", WHOLE_SECONDS)
        self._write = self._histogram("honed:log_write_seconds", "Time to make a row durable.", WRITE_SECONDS)
        self._place = self._histogram("honed:placing_seconds", "Time to tell who answers a request.", WRITE_SECONDS)
        names = ("model_name", "finished_reason")
        self._ended = Counter("vllm:request_success", "Requests ended, by reason.", names, registry=self.registry)
        self._computes = (device, weights)
        told = ("checkpoint", "device", "weights")
        self._checkpoint = Gauge("honed:checkpoint_info", "What answers, and on what.", told, registry=self.registry)

    def first_token(self, seconds: float) -> None:
        self._first.labels(**self._labels).observe(seconds)

    def next_token(self, seconds: float) -> None:
        self._next.labels(**self._labels).observe(seconds)

    def ended(self, reason: FinishReason, seconds: float) -> None:
        self._ended.labels(**self._labels, finished_reason=reason.value).inc()
        self._whole.labels(**self._labels).observe(seconds)

    def written(self, seconds: float) -> None:
        self._write.labels(**self._labels).observe(seconds)

    def placed(self, seconds: float) -> None:
        self._place.labels(**self._labels).observe(seconds)

    def text(self, checkpoint_id: str) -> bytes:
        """The scrape, in Prometheus' text form."""
        self._checkpoint.clear()
        self._checkpoint.labels(checkpoint_id, *self._computes).set(1)
        return generate_latest(self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, ("model_name",), buckets=buckets, registry=self.registry)


class _Engines(Collector):
    """Reads the engines when it is asked."""

    def __init__(self, served: Served, model_name: str) -> None:
        self._served = served
        self._label = [model_name]

    def collect(self) -> Iterator[Metric]:
        stats = self._served.stats()
        for name, text, field in GAUGES:
            gauge = GaugeMetricFamily(name, text, labels=["model_name"])
            gauge.add_metric(self._label, getattr(stats, field))
            yield gauge
        for name, text, field in COUNTERS:
            counter = CounterMetricFamily(name, text, labels=["model_name"])
            counter.add_metric(self._label, getattr(stats, field))
            yield counter
        speed = GaugeMetricFamily(
            "honed:tokens_per_second", "Tokens a second while it computed.", labels=["model_name"]
        )
        speed.add_metric(self._label, stats.tokens_per_second or 0.0)
        yield speed
        yield CounterMetricFamily("honed:swaps", "Changes of the weights that answer.", self._served.num_swaps)
        yield CounterMetricFamily(
            "honed:swap_cut_requests", "Requests that a swap's deadline ended.", self._served.num_cut
        )
