"""What an app reads, as it is declared: `app.source`, `app.table`, `app.broadcast`, `app.rules`.

They only note the words; `engine.topology` checks them, and `engine.plan` makes topics of them.
"""

from collections.abc import Callable
from typing import Any

from engine.codecs import Codec
from engine.durations import Duration
from engine.errors import ConfigError
from engine.runtime.options import Options
from engine.selectors import Selector
from engine.sources import BroadcastSource, RulesSource, Source, TableSource
from engine.topology import Topology
from engine.watermarks import Watermark, watermark_strategy


class Declarations:
    """The methods of `App` by which topics to read are declared."""

    topology: Topology
    options: Options

    def source(
        self,
        topic: str,
        value_type: Any = None,
        *,
        codec: Codec[Any] | None = None,
        key: Selector | None = None,
        key_type: Any = None,
        time: Selector | None = None,
        watermark: Watermark | None = None,
    ) -> Source:
        """Declare a source topic.

        Args:
            value_type, codec: Exactly one: a type to read JSON as, or a codec such as `debezium(User)`.
            key: Field (or callable of the value) that is the key; without it Kafka's record key counts.
            key_type: Type of the key: str (UTF-8), int (decimal text), bytes, a Struct (JSON), UUID, date, time, datetime or
                Decimal (their text; see `engine.keys`).
            time: Field or callable that gives event time in UTC milliseconds; None for the Kafka timestamp.
            watermark: `bounded("30s")`, `monotonic()`, or a class derived from `WatermarkGenerator`; without one `bounded("0s")`.
        Raises:
            ConfigError: Something is wrong with it, or it never becomes idle in an app with `max_skew`. So for `table`.
        """
        self._check_skew(f"source {topic!r}", watermark)
        return self.topology.source(topic, value_type, codec=codec, key=key, key_type=key_type, time=time, watermark=watermark)

    def table(
        self,
        topic: str,
        value_type: Any = None,
        *,
        codec: Codec[Any] | None = None,
        key: Selector | None = None,
        key_type: Any = None,
        time: Selector | None = None,
        watermark: Watermark | None = None,
        name: str | None = None,
        versions: Duration | None = None,
        upgrade: Callable[[Any], Any] | None = None,
    ) -> TableSource:
        """Declare a topic (compacted, as a rule) to read as a table: the newest record of each key; one without a value deletes the row.

        In a pipeline it is a `Table`. The arguments are those of `source`; a record without a value has Kafka's key and timestamp.

        Args:
            name: Names the state; the topic without it.
            versions: How far back the value as of a time can be asked for, in event time; see `Stream.as_of`.
            upgrade: Makes a row out of one stored before that no longer fits; see `Stream.table`.
        """
        self._check_skew(f"table {topic!r}", watermark)
        return self.topology.table(
            topic,
            value_type,
            codec=codec,
            key=key,
            key_type=key_type,
            time=time,
            watermark=watermark,
            name=name,
            versions=versions,
            upgrade=upgrade,
        )

    def broadcast(
        self,
        topic: str,
        value_type: Any = None,
        *,
        codec: Codec[Any] | None = None,
        key: Selector | None = None,
        key_type: Any = None,
        partitions: int = 1,
        name: str | None = None,
        upgrade: Callable[[Any], Any] | None = None,
    ) -> BroadcastSource:
        """Declare a (small) topic to read as a table that every task holds whole, for `Stream.lookup` by any key.

        In a pipeline it is a `Table` that can be filtered, mapped and looked into.

        Args:
            partitions: How many the topic has; it need not be as many as those of the app.
            name: Names the state; the topic without it.
            upgrade: As for `table`.
        """
        return self.topology.broadcast(
            topic, value_type, codec=codec, key=key, key_type=key_type, partitions=partitions, name=name, upgrade=upgrade
        )

    def rules(self, topic: str, *, partitions: int = 1) -> RulesSource:
        """Declare a topic of live rules, for `stream.detect(rules=…)`: compacted, made where it is missing, read whole by every task.

        Rules are put, changed and removed while the workers run: `streamforge cep rules`, or records with the rule's id as key. The
        format: `engine.cep.rules.rule`.

        Args:
            partitions: How many the topic has.
        """
        return self.topology.rules(topic, partitions=partitions)

    def _check_skew(self, what: str, watermark: Watermark | None) -> None:
        """Refuse a source without idleness where others wait for the slowest: once it is read to its end, they would for ever."""
        what = f"app {self.options.app_id!r}, {what}"
        if self.options.max_skew_ms is not None and watermark_strategy(watermark, what).idle_ms is None:
            raise ConfigError(
                f"{what}: idle=None does not go together with max_skew={self.options.max_skew_ms} ms of the app: a partition that has no "
                "more records would hold the others for ever; give its watermark an idle time, or leave out max_skew"
            )


__all__ = ["Declarations"]
