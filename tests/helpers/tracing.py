"""Spans of the real OpenTelemetry SDK, kept in memory."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from helpers.waiting import eventually
from lightlink.contrib import opentelemetry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.sdk.trace import ReadableSpan


class Spans:
    """What was traced, in a provider of the test's own."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def wait(self, count: int) -> list[ReadableSpan]:
        """Return the spans once so many have ended, in the order in which they began."""
        eventually(lambda: len(self._exporter.get_finished_spans()) >= count)
        found = sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time or 0)
        assert len(found) == count, [span.name for span in found]
        return found


@contextmanager
def tracing() -> Iterator[Spans]:
    """Trace what is made within the block."""
    found = Spans()
    opentelemetry.instrument(found.provider)
    try:
        yield found
    finally:
        opentelemetry.uninstrument()
