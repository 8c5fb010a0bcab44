"""What a worker does for codecs that need something from outside (schemas of a registry), for the TestDriver: at once, and only once.

A registry of `memory://` answers inside the process, so a test needs no server. What a worker would wait for is an error here.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

from engine.errors import ConfigError
from engine.plan import Plan
from engine.records import RecordBatch
from engine.runtime.preparing import Prepares, PreparesSink, PreparesSource, prepare_codecs
from engine.runtime.shell import Limits


class Preparing:
    """Runs the preparations of a plan's codecs on a loop of its own, made when one is needed."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._runner: asyncio.Runner | None = None
        self._written: set[str] = set()
        codecs = [spec.codec for spec in plan.fed_topics.values()]
        codecs += [sink.codec for graph in plan.graphs.values() for node in graph.nodes for sink in (node.sink, *node.sides) if sink]
        if any(isinstance(codec, PreparesSink | PreparesSource) for codec in codecs):
            self._run(prepare_codecs(plan, Limits(), sinks_wait_s=0.0))

    def before_send(self, topic: str, value: Any) -> None:
        """Let the codec of a source write a value, as its producer would, or read bytes for their key: the test is the producer."""
        source = self._plan.fed_topics.get(topic)
        if source is None or value is None or isinstance(value, dict):
            return
        if isinstance(value, bytes):
            self.before_decode(RecordBatch(topic, 0, [0], [0], [None], [value], position=0, next_offset=1))
        elif isinstance(source.codec, PreparesSink) and topic not in self._written:
            self._run(source.codec.prepare_sink(topic))
            self._written.add(topic)

    def before_decode(self, batch: RecordBatch) -> None:
        """Get what a batch needs."""
        source = self._plan.fed_topics.get(batch.topic)
        if source is not None and isinstance(source.codec, Prepares):
            self._run(source.codec.prepare(batch))

    def close(self) -> None:
        """Close the loop."""
        if self._runner is not None:
            self._runner.close()
            self._runner = None

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        if self._runner is None:
            self._runner = asyncio.Runner()
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self._runner.run(work)
            return
        work.close()
        raise ConfigError("a TestDriver whose codecs ask a registry cannot be used inside a running loop; make the test a plain function")
