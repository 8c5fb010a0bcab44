"""A short chaos run: the faults that matter most must not lose, double or change anything. More of it: `python -m tests.chaos`."""

from pathlib import Path

import pytest

from tests.chaos.plan import Step
from tests.chaos.round import Round
from tests.kafka_server import KafkaServer

pytestmark = pytest.mark.kafka


@pytest.mark.parametrize(
    "step",
    [
        Step("kill-both", after_s=0.5, victim=0, down_s=0.2, settle=True),
        Step("freeze", after_s=0.5, victim=1, down_s=0.2, settle=True),
    ],
    ids=str,
)
async def test_shop_under_a_fault_gives_what_the_oracle_says(kafka: KafkaServer, tmp_path: Path, step: Step) -> None:
    seen: list[str] = []
    outcome = await Round(7, [step], events=6_000, workers=2, folder=tmp_path, say=seen.append).run()
    print(*seen, sep="\n")
    assert outcome.failures == []
    assert {verdict.topic: verdict.examples for verdict in outcome.verdicts if not verdict.good} == {}
    assert outcome.good and len(outcome.recoveries) == 1
