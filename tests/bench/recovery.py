"""Recovery with a large state: `python -m tests.bench.recovery --entries 500000`, on a real Kafka, one task, workers as processes.

    worker A builds the state, under traffic; checkpoints and a savepoint meanwhile     how long the task stood still, at most
    A is killed and started again on its disk                                           seconds to the first committed result
    A is killed, B has no copy                                                          the same
    B is killed, A has followed as its standby                                          the same

"First committed result" is that of a visit sent right after the kill, and it must be the right one: the next number of its user.
Each number of seconds contains the session timeout (3 s), in which Kafka notices that a worker is gone.
"""

import argparse
import asyncio
import json
import os
import re
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path

from engine.records import OutputColumns, TopicPartition
from engine.runtime.transport.kafka import KafkaSettings, KafkaTransport
from engine.topics import TopicSpec
from tests.bench.broker import measured_broker
from tests.bench.restore import value_of
from tests.chaos.worker import Worker
from tests.kafka_server import KafkaServer

VISITS, SEEN = TopicPartition("visits", 0), TopicPartition("seen", 0)
TEXT_BYTES = 70
_AT_ONCE = 5_000
_PATIENCE_S = 300.0
_TRICKLE_S = 0.02

Say = Callable[[str], None]


class Recovery:
    """Measures one after the other; what is wrong raises an AssertionError with the end of the worker's log."""

    def __init__(self, server: KafkaServer, folder: Path, entries: int, say: Say) -> None:
        environ = {"STREAMFORGE_BROKER": f"kafka://{server.bootstrap}"}
        self.a, self.b, self.copying = (
            Worker(name, "tests.bench.large_state", folder, {**environ, "STREAMFORGE_STANDBYS": standbys})
            for name, standbys in (("a", "0"), ("b", "0"), ("a", "1"))
        )
        self._environ = environ
        self._folder = folder
        self._entries = entries
        self._say = say
        self._sent = 0
        self._probes = 0
        self._transport = KafkaTransport(KafkaSettings.of(f"kafka://{server.bootstrap}", group="large"))

    async def run(self) -> None:
        """Measure."""
        await self._transport.start()
        await self._transport.ensure_topics([TopicSpec("visits", 1), TopicSpec("seen", 1, retention_ms=-1)])
        try:
            await self._pauses()
            await self._first_result("killed and started again, intact disk", self.a, self.a, self._again)
            self.b.start()
            assert await self.b.until_said("assigned: nothing", 0, _PATIENCE_S), self.b.text()[-3_000:]
            await self._first_result("killed, taken over without a standby", self.a, self.b)
            self.copying.start()
            await self._until(self._has_copy, "the standby does not follow")
            await self._first_result("killed, taken over by a standby", self.b, self.copying)
        finally:
            for worker in (self.a, self.b, self.copying):
                worker.kill()
            await self._transport.stop()

    # -- what is measured

    async def _pauses(self) -> None:
        """Build the state, and under a trickle of further visits a savepoint; look at the pauses."""
        self.a.start()
        for first in range(0, self._entries, _AT_ONCE):
            await self._send([f"user-{number}" for number in range(first, min(first + _AT_ONCE, self._entries))])
        await self._until(self._is_taken, "the visits are not taken")
        await asyncio.sleep(4.0)  # one more checkpoint, with everything in it
        names = ("checkpoint_pause_longest_s", "checkpoints_total", "checkpoint_pause_seconds_total")
        longest, taken, paused_s = [await self._metrics(self.a, name) for name in names]
        trickle = asyncio.create_task(self._trickle())
        command = [sys.executable, "-m", "engine", "savepoint", "create", "measured", "-A", "tests.bench.large_state"]
        command += ["--to", f"file://{self._folder}/savepoints", "--json"]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env={**os.environ, **self._environ})
        printed, _ = await process.communicate()
        trickle.cancel()
        await asyncio.wait([trickle])
        assert process.returncode == 0, self.a.text()[-3_000:]
        savepoint = json.loads(printed)
        self._say(f"{'state':<41} {self._entries:,} entries, {savepoint['file_bytes'] / 2**20:.0f} MiB in a savepoint")
        self._say(f"{'longest pause for a checkpoint':<41} {longest:.3f} s, of {taken:.0f} under full traffic ({paused_s:.3f} s in all)")
        self._say(f"{'longest pause for a savepoint':<41} {savepoint['pause_ms'] / 1_000:.3f} s")
        await self._until(self._is_taken, "the trickle is not taken")

    async def _first_result(self, what: str, killed: Worker, next_one: Worker, meanwhile: Callable[[], None] | None = None) -> None:
        since = next_one.said()
        begun_s = time.monotonic()
        killed.kill()
        if meanwhile is not None:
            meanwhile()
        self._probes += 1
        visits = await self._probe()
        seconds = time.monotonic() - begun_s
        assert visits == self._probes + 1, f"the user was there {self._probes + 1} times, the state says {visits}"
        line = await next_one.until_said("task 0: open after", since, _PATIENCE_S)
        assert line is not None, next_one.text(since)[-3_000:]
        opened = re.search(r"open after .*", line)
        self._say(f"{what:<41} {seconds:.1f} s; {'' if opened is None else opened[0]}")

    def _again(self) -> None:
        self.a.start()

    async def _probe(self) -> int:
        """Send a visit of user 0 and return what number its result says, as a read_committed reader sees it."""
        end = (await self._transport.high_watermarks([SEEN]))[SEEN]
        reader = await self._transport.open_reader(SEEN, end)
        await self._send(["user-0"])
        deadline = time.monotonic() + _PATIENCE_S
        try:
            while True:
                assert time.monotonic() < deadline, "no result"
                batch = await reader.read(1.0)
                for value in batch.values if batch is not None else ():
                    found = json.loads(value or b"")
                    if found["user"] == "user-0":
                        return int(found["visits"])
        finally:
            await reader.close()

    # -- help

    async def _send(self, users: list[str]) -> None:
        now_ms = time.time_ns() // 1_000_000
        first = self._sent
        self._sent += len(users)
        values: list[bytes | None] = [
            b'{"user":"%s","text":"%s"}' % (user.encode(), value_of(first + place)[:TEXT_BYTES]) for place, user in enumerate(users)
        ]
        keys: list[bytes | None] = [user.encode() for user in users]
        await self._transport.send({VISITS: OutputColumns([now_ms] * len(users), keys, values)})

    async def _trickle(self) -> None:
        number = 0
        while True:
            number += 1
            await self._send([f"user-{number % self._entries or 1}"])
            await asyncio.sleep(_TRICKLE_S)

    async def _is_taken(self) -> bool:
        assert self.a.died is None, self.a.text()[-3_000:]
        return (await self._transport.committed_offsets([VISITS])).get(VISITS, 0) >= self._sent

    async def _has_copy(self) -> bool:
        assert self.copying.died is None, self.copying.text()[-3_000:]
        return await self._metrics(self.copying, "standby_lag") == 0

    async def _metrics(self, worker: Worker, name: str) -> float | None:
        """Return a number of a worker's task; None if it does not say."""
        url = f"http://127.0.0.1:{worker.web_port}/metrics"
        try:
            text = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=5).read().decode())
        except OSError:
            return None
        found = re.search(rf"^streamforge_{name}\{{[^}}]*\}} (\S+)", text, re.MULTILINE)
        return None if found is None else float(found[1])

    async def _until(self, holds: Callable[[], Awaitable[bool]], what: str) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not await holds():
            assert time.monotonic() < deadline, what
            await asyncio.sleep(0.1)


def main() -> int:
    """Start a Kafka and measure."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.recovery", description="Recovery with a large state.")
    parser.add_argument("--entries", type=int, default=500_000, help="entries of the task's state (500000)")
    chosen = parser.parse_args()
    try:
        with measured_broker(heap_mb=768) as server, tempfile.TemporaryDirectory(prefix="streamforge-recovery-") as folder:
            asyncio.run(Recovery(server, Path(folder), chosen.entries, lambda line: print(line, flush=True)).run())
    except AssertionError as error:
        print(f"recovery: wrong: {error}")
        return 1
    print("recovery: all right")
    return 0


if __name__ == "__main__":
    sys.exit(main())
