"""A worker's memory and open files stay flat; `make test-long` does it with 10,000,000 records and 100 rebalances."""

from pathlib import Path

import pytest

from tests.effort import EFFORT
from tests.kafka_server import KafkaServer
from tests.soak.measure import Sample, growth
from tests.soak.run import Found, Soak
from tests.soak.verdict import judge

RECORDS, REBALANCES = (10_000_000, 100) if EFFORT == "long" else (200_000, 10)


@pytest.mark.kafka
@pytest.mark.slow
async def test_memory_and_open_files_stay_flat_over_records_and_rebalances(kafka: KafkaServer, tmp_path: Path) -> None:
    found = await Soak(RECORDS, REBALANCES, tmp_path, print).run()
    print(found)
    assert judge(found) == []


def test_growth_compares_late_with_early_and_leaves_out_the_beginning() -> None:
    samples = [Sample(done, 100.0 if done > 15 else 10.0 * done, 20) for done in range(101)]
    assert growth(samples, 100).mib == 0.0
    leaking = [Sample(done, 100.0 + done, 20 + done) for done in range(101)]
    grown = growth(leaking, 100)
    assert (grown.mib, grown.files) == (60.0, 60)
    counted, late = {"minutes": 7, "countries": 5}, {"minutes": 0, "countries": 1}
    assert judge(Found(7, 1.0, counted, late, grown, growth(samples, 100))) == [
        f"memory grows over orders: {grown}",
        f"open files grow over orders: {grown}",
        "countries counts 5 of 7 orders, 1 were late for it",
    ]
