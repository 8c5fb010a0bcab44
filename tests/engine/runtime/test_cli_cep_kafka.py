"""`streamforge cep` on a real Kafka with two workers, asked well and asked badly: each answer says what is wrong, and what to do."""

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from engine.runtime.cli.root import main
from engine.topics import TopicSpec
from state.hashing import partition_of
from tests.engine.cep.rules_world import rule, stage
from tests.engine.runtime.kafka_harness import connected, settings_of, unique
from tests.engine.runtime.test_rules_kafka import OUT, PAIR, PARTITIONS, PROGRAM, USERS, World, events
from tests.kafka_server import KafkaServer
from tests.ports import free_port

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

OF_PARTITION = {partition_of(user.encode(), PARTITIONS): user for user in USERS}


@pytest.fixture
def name() -> str:
    return unique("cli-cep")


async def said(world: World, *args: str, given: bytes = b"", **environ: str) -> tuple[int, str]:
    """Run a `cep` command in this process; return its status and what it said."""
    result = await asyncio.to_thread(CliRunner(env=world.environ | environ).invoke, main, ["cep", *args], input=given)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


async def test_cep_commands_with_two_workers_asked_well_and_badly(kafka: KafkaServer, tmp_path: Path, name: str) -> None:
    async with connected(settings_of(kafka)) as transport:
        worlds = []
        for number in (1, 2):
            (folder := tmp_path / f"worker-{number}").mkdir()
            worlds.append(World(folder, name, kafka, transport))
        await transport.ensure_topics([TopicSpec(f"{name}-events", PARTITIONS, retention_ms=-1)])
        try:
            for world in worlds:
                world.start()
            await check_rules(worlds[0], kafka, name)
            await worlds[0].send(events(0, 4))
            await check_explain(*worlds)
        finally:
            for world in worlds:
                world.end(signal.SIGTERM)


async def check_rules(world: World, kafka: KafkaServer, name: str) -> None:
    own = ("-A", str(PROGRAM))
    good = rule("pair", 1, *PAIR, within="10m", output=OUT)
    assert await said(world, "rules", "put", "-", *own, given=good) == (0, "pair version 1 put\n")
    for given, words in (
        (b"{", "not a valid Rule"),
        (b"", "no rule in it"),
        (b"\xff\xfe", "not a valid Rule"),
        (b'{"id": "x"}', "version"),
        (rule("pair", 1, stage("a")), "needs a higher one"),
        (rule("pair", 2, stage("a", "nope = 1")), "no field 'nope'"),
        (rule("zero", 0, stage("a")), "version"),
        (b'{"id": "s", "version": 1, "match_recognize": "PATTERN (A"}', "line 1, column 11"),
    ):
        status, answer = await said(world, "rules", "put", "-", *own, given=given)
        assert status == 1 and words in answer, (given, answer)
    on_kafka = ("--broker", f"kafka://{kafka.bootstrap}")
    for args, words in (
        (("remove", "nobody", *own), "has no rule 'nobody'; it has pair"),
        (("list", *own, "--topic", "nope"), "which topic of rules"),
        (("list", *on_kafka), "which topic"),
        (("list", "--topic", f"{name}-nothing", *on_kafka), "does not exist"),
    ):
        status, answer = await said(world, "rules", *args)
        assert status == 1 and words in answer, (args, answer)
    assert await said(world, "rules", "list", *own) == (0, "pair  version 1  pattern\n")
    away = f"127.0.0.1:{free_port()}"
    status, answer = await said(world, "rules", "list", "--topic", f"{name}-rules", STREAMFORGE_BROKER=f"kafka://{away}")
    assert status == 1 and away in answer


async def check_explain(one: World, other: World) -> None:
    addresses = [f"http://127.0.0.1:{world.port}" for world in (one, other)]
    both = ("--worker", addresses[0], "--worker", addresses[1])
    ask = ("explain", "--pipeline", "alerts", "--key")
    answers: dict[int, dict[str, Any]] = {}
    async with asyncio.timeout(90):
        while len(answers) < PARTITIONS:
            await asyncio.sleep(1)
            for partition, user in OF_PARTITION.items():
                status, answer = await said(one, *ask, user, *both, "--json")
                if status == 0 and json.loads(answer)["state"].get("partial_matches"):
                    answers[partition] = json.loads(answer)
    assert {partition: answer["partition"] for partition, answer in answers.items()} == {number: number for number in range(PARTITIONS)}
    alone = [[await said(one, *ask, user, "--worker", address) for address in addresses] for user in OF_PARTITION.values()]
    for first, second in alone:
        assert sorted((first[0], second[0])) == [0, 1]  # one of them has it, the other one says that it has not
        assert "name the other workers by --worker" in (first if first[0] else second)[1]
    nowhere = f"http://127.0.0.1:{free_port()}"
    user = USERS[0]
    assert (await said(one, *ask, user, "--worker", nowhere, *both))[0] == 0  # one that is away is passed over
    assert await said(one, *ask, "nobody", *both) == (
        0,
        f"nobody, partition {partition_of(b'nobody', PARTITIONS)}: 0 alive, 0 records wait for the watermark\n",
    )
    for args, words in (
        ((*ask, user, "--worker", nowhere), "no worker answers at"),
        ((*ask, user, "--worker", "127.0.0.1:80"), "an address such as"),
        ((*ask, user, *both, "--operator", "nope"), "nope"),
        (("explain", "--pipeline", "nope", "--key", user, *both), "nope"),
    ):
        status, answer = await said(one, *args)
        assert status == 1 and words in answer, (args, answer)
