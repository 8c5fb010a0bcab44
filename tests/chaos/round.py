"""One round: a broker, workers, traffic, the plan's faults, and the verdict."""

import asyncio
import re
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from tests.chaos.feed import Feed, read_input
from tests.chaos.line import Line
from tests.chaos.operator import Operator
from tests.chaos.outcome import Outcome, Recovery
from tests.chaos.plan import Step
from tests.chaos.results import Results, Row, places
from tests.chaos.topics import make_topics
from tests.chaos.verdict import Expected
from tests.chaos.worker import Worker
from tests.kafka_server import KafkaServer
from tests.oracle.shop import PARTITIONS
from tests.ports import free_port

SESSION_TIMEOUT_S = 3
_REBALANCE_TIMEOUT_S = 6
_STARTED_S = 60.0
_RECOVERED_S = 60.0
_QUIET_S = 45.0
_OPERATOR_S = 20.0
_LOOK_S = 0.05
_LAST_WORDS_S = 0.3
_TURNS = 5
_PATIENT = {"broker.session.timeout.ms": "15000"}
"""A frozen broker must not lose its partitions for it, since nobody else could lead them: Kafka 4.3.1 forgets the markers of
transactions whose partition has no leader at that moment, and the transaction stays open there (KAFKA-20734) until its end is written."""
_DISK_FULL = r"task (\d+): (?:dropped|could not be opened): .*cannot be (?:written|opened)"
_ZOMBIE = "a newer producer owns|member_id was not recognized|generation id is not +current|revoked: "

Say = Callable[[str], None]


class Round:
    """Runs a plan against the shop; everything is gone when `run` returns, but for the logs in `folder`."""

    def __init__(self, seed: int, plan: Sequence[Step], *, events: int, workers: int, folder: Path, say: Say) -> None:
        self.outcome = Outcome(seed, [str(step) for step in plan])
        self._plan = plan
        self._events = events
        self._folder = folder
        self._say = say
        self._lines = [Line(free_port()) for _ in range(workers)] if any(step.fault == "cut" for step in plan) else []
        patient = _PATIENT if any(step.fault == "broker-freeze" for step in plan) else None
        self._server = KafkaServer(patient, lines=[line.port for line in self._lines])
        self._count = workers
        self._workers: list[Worker] = []
        self._results: Results
        self._operator: Operator
        self._begun_s = time.time()

    async def run(self) -> Outcome:
        """Run the round."""
        outcome = self.outcome
        await asyncio.to_thread(self._server.start)
        self._operator = Operator(self._server.bootstrap, self._tell)
        try:
            await make_topics(self._server.bootstrap)
            async with Results(self._server.bootstrap) as self._results:
                await self._run()
        finally:
            for worker in self._workers:
                worker.kill()
            for line in self._lines:
                await line.stop()
            await asyncio.to_thread(self._server.stop, keep_log=not outcome.good)
            outcome.seconds = round(time.time() - self._begun_s, 1)
        return outcome

    async def _run(self) -> None:
        outcome, bootstrap = self.outcome, self._server.bootstrap
        environ = {
            "STREAMFORGE_BROKER_SESSION_TIMEOUT": str(SESSION_TIMEOUT_S),
            "STREAMFORGE_BROKER_REBALANCE_TIMEOUT": str(_REBALANCE_TIMEOUT_S),
        }
        addresses = [f"127.0.0.1:{line.port}" for line in self._lines]
        for line, port in zip(self._lines, self._server.line_ports, strict=True):
            await line.start(port)
        for number in range(self._count + 1):
            address = addresses[number] if number < len(addresses) else bootstrap
            environ["STREAMFORGE_BROKER"] = f"kafka://{address}"
            self._workers.append(Worker(f"worker-{number}", "tests.chaos.shop", self._folder, environ))
        for worker in self._workers[: self._count]:
            worker.start()
        feed = Feed(bootstrap, self._events, outcome.seed)
        feeding = asyncio.create_task(feed.run())
        try:
            await self._faults()
            feed.finish()
            await feeding
        finally:
            feeding.cancel()
        outcome.sent = feed.sent
        source = await read_input(bootstrap)
        if len(source) != feed.sent:
            outcome.notes.append(f"{feed.sent:,} records sent, {len(source):,} in the log: the expected results are those of the log")
        expected = Expected(source, feed.closing_ms)
        await self._until_complete(expected)
        await self._end_workers()
        outcome.verdicts = expected.judge(await self._read_again())
        self._note_logs()

    async def _read_again(self) -> dict[str, list[Row]]:
        """Return all results as a reader finds them that comes when everything is over; the one that watched must have seen the same."""
        async with Results(self._server.bootstrap) as again:
            for reader in (self._results, again):
                if await reader.to_end(20.0):
                    continue
                await self._operator.end_what_hangs()
                if not await reader.to_end(20.0):
                    self.outcome.failures.append("the results could not be read to their ends: a transaction is still open")
            for topic, rows in again.rows.items():
                only_then, only_now = places(self._results.rows[topic]) - places(rows), places(rows) - places(self._results.rows[topic])
                if only_then or only_now:
                    self.outcome.failures.append(
                        f"{topic}: a reader that watched saw {len(only_then)} rows that are gone, and missed {len(only_now)}"
                    )
            return again.rows

    # -- the plan

    async def _faults(self) -> None:
        started = await self._until(lambda: len(self._results.numbers_seen(0.0)) == PARTITIONS, _STARTED_S)
        if not started:
            self.outcome.failures.append(f"the workers did not show a result of every task within {_STARTED_S:.0f} s")
            return
        self._tell("all tasks run")
        for at, step in enumerate(self._plan):
            await asyncio.sleep(step.after_s)
            hit_s, numbers = await self._apply(step)
            if not numbers:
                self.outcome.notes.append(f"{step}: hit nothing, the worker had no tasks")
            elif step.settle or at == len(self._plan) - 1:
                await self._settle(step, hit_s, numbers)

    async def _apply(self, step: Step) -> tuple[float, set[int]]:
        """Do it; return when the fault hit, and the tasks that it hit."""
        self._tell(str(step))
        act: dict[str, Callable[[Step, Worker], Awaitable[tuple[float, set[int]]]]] = {
            "kill": self._kill,
            "kill-both": self._kill_both,
            "restart": self._restart,
            "freeze": self._freeze,
            "cut": self._cut,
            "full-disk": self._full_disk,
            "lost-disk": self._lost_disk,
            "old-disk": self._old_disk,
            "broker": self._kill_broker,
            "broker-freeze": self._freeze_broker,
            "rebalance": self._rebalance,
            "rebalances": self._rebalances,
        }
        victim = self._workers[step.victim]
        await self._until(lambda: bool(victim.numbers()), 2 * _REBALANCE_TIMEOUT_S)
        return await act[step.fault](step, victim)

    async def _kill(self, step: Step, victim: Worker) -> tuple[float, set[int]]:
        numbers, hit_s = victim.numbers(), time.time()
        victim.kill()
        await asyncio.sleep(step.down_s)
        victim.start()
        return hit_s, numbers

    async def _kill_both(self, step: Step, victim: Worker) -> tuple[float, set[int]]:
        workers, hit_s = self._workers[: self._count], time.time()
        for worker in workers:
            worker.kill()
        await asyncio.sleep(step.down_s)
        for worker in workers:
            worker.start()
        return hit_s, set(range(PARTITIONS))

    async def _restart(self, step: Step, victim: Worker) -> tuple[float, set[int]]:
        numbers, hit_s = victim.numbers(), time.time()
        await self._end(victim)
        await asyncio.sleep(step.down_s)
        victim.start()
        return hit_s, numbers

    async def _freeze(self, step: Step, victim: Worker) -> tuple[float, set[int]]:
        return await self._away(step, victim, victim.freeze, victim.resume)

    async def _cut(self, step: Step, victim: Worker) -> tuple[float, set[int]]:
        line = self._lines[step.victim]
        return await self._away(step, victim, line.cut, line.mend)

    async def _full_disk(self, step: Step, victim: Worker) -> tuple[float, set[int]]:
        hit_s, mark = time.time(), victim.said()
        victim.fill_disk()
        if await victim.until_said(_DISK_FULL, mark, 30.0) is None:
            self.outcome.failures.append(f"{step}: {victim.name} did not say that its disk takes no more")
        await asyncio.sleep(2 * step.down_s)
        hit = {int(number) for number in re.findall(_DISK_FULL, victim.text(mark))}  # not those that had nothing to commit meanwhile
        victim.free_disk()
        return hit_s, hit

    async def _away(self, step: Step, victim: Worker, leave: Callable[[], None], come_back: Callable[[], None]) -> tuple[float, set[int]]:
        """Keep a worker away until all its tasks run elsewhere; let it go on, and see that it was a zombie and found out."""
        others = [worker for worker in self._workers if worker.running and worker is not victim]
        marks = {worker.name: worker.said() for worker in others}
        numbers, hit_s = victim.numbers(), time.time()
        leave()
        taken = await self._until(
            lambda: numbers <= {number for worker in others for _, number in worker.opened(marks[worker.name])}, _RECOVERED_S
        )
        if not taken:
            self.outcome.failures.append(f"{step}: nobody took over all of {sorted(numbers)} from {victim.name}")
        await asyncio.sleep(step.down_s)
        mark = victim.said()
        come_back()
        evidence = await victim.until_said(_ZOMBIE, mark, 30.0)
        if evidence is None:
            self.outcome.failures.append(f"{step}: {victim.name} came back and did not find out that it owns nothing any more")
        else:
            self._tell(f"{victim.name} found out: {evidence[:160]}")
        return hit_s, numbers

    async def _lost_disk(self, step: Step, victim: Worker) -> tuple[float, set[int]]:
        numbers, hit_s = victim.numbers(), time.time()
        victim.kill()
        victim.lose_disk()
        await asyncio.sleep(step.down_s)
        victim.start()
        return hit_s, numbers

    async def _old_disk(self, step: Step, victim: Worker) -> tuple[float, set[int]]:
        copy = self._folder / f"{victim.name}-copy"
        early_s, early = time.time(), victim.numbers()
        victim.kill()
        victim.keep_copy(copy)
        victim.start()
        await self._recovered(early_s, early)
        await asyncio.sleep(1.0)
        numbers, hit_s = victim.numbers(), time.time()
        victim.kill()
        victim.bring_back(copy)
        await asyncio.sleep(step.down_s)
        victim.start()
        return hit_s, numbers

    async def _kill_broker(self, step: Step, victim: Worker) -> tuple[float, set[int]]:
        await asyncio.to_thread(self._server.kill)
        hit_s = time.time()
        await asyncio.sleep(step.down_s)
        await asyncio.to_thread(self._server.start)
        self._tell(f"the broker is back after {time.time() - hit_s:.1f} s")
        return hit_s, set(range(PARTITIONS))

    async def _freeze_broker(self, step: Step, victim: Worker) -> tuple[float, set[int]]:
        self._server.pause()
        hit_s = time.time() + _LAST_WORDS_S
        await asyncio.sleep(2 * SESSION_TIMEOUT_S * step.down_s)
        self._server.resume()
        self._tell(f"the broker is back after {time.time() - hit_s:.1f} s")
        return hit_s, set(range(PARTITIONS))

    async def _rebalance(self, step: Step, victim: Worker) -> tuple[float, set[int]]:
        guest = self._workers[self._count]
        hit_s = time.time()
        for leave in ("end", "kill"):
            guest.start()
            if not await self._until(lambda: bool(guest.numbers()), _RECOVERED_S):
                self.outcome.failures.append(f"{step}: the further worker got no task")
            await asyncio.sleep(step.down_s)
            if leave == "end":
                await self._end(guest)
            else:
                hit_s = time.time()
                guest.kill()
        return hit_s, set(range(PARTITIONS))

    async def _rebalances(self, step: Step, victim: Worker) -> tuple[float, set[int]]:
        """Let a further worker come and go again and again, before anyone has come to rest: openings and restores are cut short."""
        guest, groups = self._workers[self._count], [worker for worker in self._workers if worker.running]
        mark = {worker.name: worker.said() for worker in groups}
        for turn in range(_TURNS):
            guest.start()
            await self._until(lambda: bool(guest.numbers()) or not guest.running, _RECOVERED_S)
            await asyncio.sleep(step.down_s * turn / _TURNS)
            if turn % 2:
                await self._end(guest)
            else:
                guest.kill()
        hit_s = time.time()
        count = max(worker.text(mark[worker.name]).count("assigned: ") for worker in groups)
        self._tell(f"{_TURNS} comings and goings, {count} rebalances")
        return hit_s, set(range(PARTITIONS))

    # -- waiting

    async def _settle(self, step: Step, hit_s: float, numbers: set[int]) -> None:
        """Wait until every task that was hit shows results again, and note how long that took."""
        back = await self._recovered(hit_s, numbers, opened_anew=not step.fault.startswith("broker"))
        if back is None:
            self.outcome.failures.append(
                f"{step}: not all of the tasks {sorted(numbers)} had committed a result {_RECOVERED_S:.0f} s later"
            )
            return
        times = [seen_s - hit_s for seen_s in back.values()]
        recovery = Recovery(step.fault, len(numbers), round(min(times), 2), round(max(times), 2))
        self.outcome.recoveries.append(recovery)
        self._tell(f"recovered: first of {recovery.tasks} tasks after {recovery.first_s:.1f} s, all after {recovery.seconds:.1f} s")

    async def _recovered(self, hit_s: float, numbers: set[int], *, opened_anew: bool = True) -> dict[int, float] | None:
        """Wait for a result of each task, and return when each was first seen; None if one does not come.

        A worker's last commits may be seen a moment after its end: what counts is what comes when the task has been opened anew.
        A broker that does not run has no such last words.
        """
        back: dict[int, float] = {}

        def look() -> bool:
            opened = {} if opened_anew else dict.fromkeys(numbers, hit_s)
            for worker in self._workers if opened_anew else ():
                for opened_s, number in worker.opened():
                    if opened_s >= hit_s:
                        opened[number] = min(opened_s, opened.get(number, opened_s))
            for number in numbers & opened.keys():
                seen_s = self._results.first_seen(number, opened[number])
                if seen_s is not None:
                    back[number] = seen_s
            return len(back) == len(numbers)

        return back if await self._until(look, _RECOVERED_S) else None

    async def _until_complete(self, expected: Expected) -> None:
        """Wait until as much has come out as must, or nothing has come for long; the operator looks before that."""
        self._results.newest_s = time.time()
        for quiet_s in (_OPERATOR_S, _QUIET_S):

            def is_over(quiet_s: float = quiet_s) -> bool:
                return expected.is_complete(self._results.rows) or time.time() - self._results.newest_s > quiet_s

            await self._until(is_over, 300.0)
            if quiet_s == _OPERATOR_S and not expected.is_complete(self._results.rows):
                await self._operator.end_what_hangs()
                self._results.newest_s = time.time()
        if expected.is_complete(self._results.rows):
            self._tell("everything is processed")
        else:
            self.outcome.failures.append(f"the results are not complete, and nothing has come for {_QUIET_S:.0f} s")

    async def _until(self, holds: Callable[[], bool], timeout_s: float) -> bool:
        """Look again and again, also at whether a worker died by itself; return whether it held within the time."""
        deadline = time.monotonic() + timeout_s
        while not holds():
            self._check_workers()
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(_LOOK_S)
        return True

    # -- the workers

    def _check_workers(self) -> None:
        for worker in self._workers:
            if worker.died is not None:
                self.outcome.failures.append(f"{worker.name} ended by itself with status {worker.died}")
                worker.kill()
                worker.start()

    async def _end(self, worker: Worker) -> None:
        begun_s, allowed = time.time(), (0, -signal.SIGTERM) if worker.starting else (0,)
        status = await worker.end()
        self._tell(f"{worker.name} ended within {time.time() - begun_s:.1f} s")
        if status not in allowed:
            what = "did not end and was killed" if status is None else f"ended with status {status}"
            self.outcome.failures.append(f"{worker.name} {what} after SIGTERM")

    async def _end_workers(self) -> None:
        self._check_workers()
        await asyncio.gather(*(self._end(worker) for worker in self._workers if worker.running))

    def _note_logs(self) -> None:
        self.outcome.notes += self._operator.notes(worker.text() for worker in self._workers)
        for worker in self._workers:
            tracebacks = worker.text().count("Traceback (most recent call last)")
            if tracebacks:
                self.outcome.notes.append(f"{tracebacks} tracebacks in the log of {worker.name}")

    def _tell(self, what: str) -> None:
        self._say(f"  {time.time() - self._begun_s:5.1f} s  {what}")
