"""`make cdc`: the whole chain on loopback, with a writer, the pipelines of `agents.changes` and a replica, until Ctrl-C.

PostgreSQL ─► Debezium in Connect ─► Kafka ─► agents.changes ─► domain-events, feeds, placed-orders
                    └─ schemas ─► Apicurio      └► streamforge replicate ─► schema "copy", duckdb file
"""

import argparse
import asyncio
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from engine.runtime.transports import make_transport
from engine.topics import TopicSpec
from tests.apicurio_server import ApicurioServer
from tests.cdc.chain.connect import Connect
from tests.cdc.chain.postgres import Postgres
from tests.cdc.chain.shop import TABLES, TOPICS, Writer, create_shop, start_connector
from tests.cdc.chain.shown import compare, follow, wait_for_copy
from tests.chaos.worker import Worker
from tests.kafka_server import KafkaServer
from tests.maven import JavaMissing


def main() -> int:
    """Run the chain and show what flows."""
    parser = argparse.ArgumentParser(prog="python -m tests.cdc.chain", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, help="stop after so many seconds of changes (at Ctrl-C)")
    parser.add_argument("--json", action="store_true", help="let Debezium write JSON: without Avro and the registry")
    parser.add_argument("--seed", type=int, default=1, help="of the writer (1)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    begun = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - begun:6.1f} s  {text}", flush=True)

    try:
        with ExitStack() as stack:
            return _run(stack, options, say)
    except KeyboardInterrupt:
        say("stopped: nothing that was started runs any more")
    except JavaMissing as error:
        print(f"the chain cannot be run here: {error}", file=sys.stderr)
        return 1
    return 0


def _run(stack: ExitStack, options: argparse.Namespace, say: Callable[[str], None]) -> int:
    kafka = stack.enter_context(KafkaServer())
    broker = f"kafka://{kafka.bootstrap}"
    say(f"Kafka at {broker}")
    postgres = stack.enter_context(Postgres())
    say(f"PostgreSQL at {postgres.url()}")
    apicurio = None if options.json else stack.enter_context(ApicurioServer())
    if apicurio is not None:
        say(f"Apicurio at {apicurio.url}")
    connect = Connect(kafka.bootstrap)
    stack.callback(connect.stop)
    connect.start()
    say("Kafka Connect with Debezium is up")
    asyncio.run(_make_topics(broker))
    create_shop(postgres)
    start_connector(connect, postgres, None if apicurio is None else apicurio.base_url)
    say("the shop's database is there, and its connector streams")
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cdc-shop-")))
    environ = {"STREAMFORGE_BROKER": broker, **({} if apicurio is None else {"CHANGES_REGISTRY": apicurio.url})}
    worker = Worker("worker", "agents.changes", folder, environ)
    stack.callback(worker.kill)
    worker.start()
    registry = [] if apicurio is None else ["--registry", apicurio.url]
    file = folder / "copy.duckdb"
    commands = [_replicate(broker, target, registry) for target in (postgres.url(), f"duckdb:{file}")]
    replicators = [_start(stack, command, folder / "replicate.log") for command in commands]
    writer = Writer(postgres, seed=options.seed, pause_s=0.2).start()
    stack.callback(writer.stop)
    say("a writer changes the shop while the pipelines and the replicators come up; what comes of it:")
    asyncio.run(follow(broker, postgres, options.seconds, say))
    writer.stop()
    say("the writer has stopped; are the copies what the source is?")
    wait_for_copy(postgres)
    for process in replicators:
        process.terminate()
        process.wait(30)
    subprocess.run([*commands[1], "--no-follow"], check=True, capture_output=True, timeout=60)
    equal = compare(postgres, str(file), say)
    say("stopping")
    stack.close()
    say("stopped: nothing that was started runs any more")
    return 0 if equal else 1


def _replicate(broker: str, target: str, registry: list[str]) -> list[str]:
    command = [sys.executable, "-m", "engine", "replicate", "--broker", broker, "--to", target, "--schema", "copy", *registry]
    return [*command, *(f"pg.public.{table}" for table in TABLES)]


def _start(stack: ExitStack, command: list[str], log: Path) -> "subprocess.Popen[bytes]":
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    stack.callback(process.wait, 30)
    stack.callback(process.terminate)
    return process


async def _make_topics(broker: str) -> None:
    transport = make_transport(broker, group="")
    await transport.start()
    await transport.ensure_topics([TopicSpec(topic, 3) for topic in TOPICS])
    await transport.stop()


if __name__ == "__main__":
    sys.exit(main())
