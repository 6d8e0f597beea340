"""Metrics for Prometheus. Each server has its own registry."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120)


class Metrics:
    """The metrics of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("farfeel_requests", "Responses sent.", ["route", "status"], registry=self.registry)
        self.seconds = Histogram(
            "farfeel_request_seconds",
            "Time from the first byte of a request to the end of its response.",
            ["route"],
            registry=self.registry,
            buckets=SECONDS,
        )
        self.network = Histogram(
            "farfeel_network_seconds",
            "Time of one batch of windows in the network, including its wait.",
            registry=self.registry,
            buckets=SECONDS,
        )
        self.upload_bytes = Counter("farfeel_upload_bytes", "Bytes of request bodies received.", registry=self.registry)
        self.uploads = Gauge("farfeel_uploads", "Uploads that are arriving.", registry=self.registry)
        self.recordings = Gauge(
            "farfeel_recordings", "Recordings that are waiting or processed.", registry=self.registry
        )
        self.streams = Gauge("farfeel_streams", "Open live streams.", registry=self.registry)

    def text(self) -> bytes:
        """All metrics in Prometheus's exposition format."""
        return generate_latest(self.registry)
