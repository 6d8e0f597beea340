"""Counters for Prometheus, one registry for each server."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120)


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("farfeel_requests", "Answers given.", ["route", "status"], registry=self.registry)
        self.seconds = Histogram(
            "farfeel_request_seconds",
            "From a request's first byte to the end of its answer.",
            ["route"],
            registry=self.registry,
            buckets=SECONDS,
        )
        self.network = Histogram(
            "farfeel_network_seconds",
            "One batch of windows in the network, its wait for it included.",
            registry=self.registry,
            buckets=SECONDS,
        )
        self.upload_bytes = Counter("farfeel_upload_bytes", "Bytes of bodies taken in.", registry=self.registry)
        self.places = Gauge(
            "farfeel_recordings", "Recordings uploaded, waiting or being worked on.", registry=self.registry
        )
        self.streams = Gauge("farfeel_streams", "Live streams that are open.", registry=self.registry)

    def text(self) -> bytes:
        """In Prometheus's exposition format."""
        return generate_latest(self.registry)
