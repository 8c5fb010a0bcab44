"""The app of the rounds gives what the oracle says when nothing goes wrong."""

import msgspec

from agents.traffic import traffic
from engine.testing import TestDriver
from tests.chaos.feed import Input, closing_records, partition_of
from tests.chaos.results import TOPICS, Row
from tests.chaos.shop import app
from tests.chaos.verdict import Expected
from tests.oracle.shop import PARTITIONS


def test_shop_with_a_join_gives_what_the_oracle_says() -> None:
    source = Input()
    records = list(traffic(1_500, seed=11))
    newest_ms = max(record.timestamp_ms for record in records)
    closing = list(closing_records(newest_ms))
    with TestDriver(app, partitions=PARTITIONS) as driver:
        for offset, (topic, key, value, timestamp_ms) in enumerate([*records, *closing]):
            driver.send(topic, value, key=key.decode(), at=timestamp_ms)
            source.values[topic].append(value)
            source.places[topic].append((partition_of(key), offset))
        rows = {
            topic: [
                Row(record.partition, record.offset, record.key or "", msgspec.json.encode(record.value), dict(record.headers), 0.0)
                for record in driver.read(topic)
            ]
            for topic in TOPICS
        }
    expected = Expected(source, closing[0].timestamp_ms)
    assert len(rows["shop-dlq"]) == len(expected.dead)  # the places are the broker's, which is not there
    verdicts = {verdict.topic: verdict for verdict in expected.judge(rows) if verdict.topic != "shop-dlq"}
    assert {topic: verdict.examples for topic, verdict in verdicts.items() if not verdict.good} == {}
    assert verdicts["viewed-orders"].found > 300
