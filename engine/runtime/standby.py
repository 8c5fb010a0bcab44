"""Standbys: copies of tasks that other workers run, kept near the end of their changelogs, so that a takeover restores only the tail.

    worker a   task 3 ──► changelog partition 3 ──► standby 3   worker b        a dies: b has the store, the group gives it task 3

A standby only reads. It writes nothing to the broker, takes no checkpoints, and fences nobody; its store is opened by the task like
any other, and judged then as any other (`state.changelog.judge`). It is judged when the standby begins, too, and again after a gap in
which the changelog may have forgotten deletions.

Which worker keeps which copies is settled by the assignor, with the partitions.
"""

import asyncio
import logging
from functools import partial

from engine.errors import ConfigError, StateError, UnavailableError
from engine.records import TopicPartition
from engine.runtime.checkpointing import begin_from_checkpoint
from engine.runtime.following import Follower
from engine.runtime.holder import Holder
from engine.runtime.opening import open_store
from engine.runtime.restore import find_identity
from engine.runtime.shell import Shell
from engine.runtime.threads import in_thread
from state.changelog import judge
from state.store import Store

log = logging.getLogger(__name__)

READ_TIMEOUT_S = 1.0
AGAIN_S = 1.0
GAP_MS = 3_600_000
CLOSE_S = 5.0


class Standby:
    """Keeps one copy from `start` to `close`."""

    def __init__(self, shell: Shell, number: int) -> None:
        self.number = number
        self._shell = shell
        self._changelog = TopicPartition(shell.plan.changelog_topic, number)
        self.holder = Holder(f"standby of task {number}")

    def start(self, before: Holder | None = None) -> None:
        """Begin to follow, once the one who held the store before on this worker has ended."""
        self.holder.start(self._run(before))

    async def close(self) -> None:
        """Let go of the store; bounded in time."""
        await self.holder.end(CLOSE_S)

    async def _run(self, before: Holder | None) -> None:
        try:
            await self.holder.follow(before)
            while True:
                self.holder.check()
                try:
                    await self._hold()
                except (StateError, UnavailableError, ConfigError, OSError) as error:
                    log.warning("standby of task %d: %s; tried again in %.1f s", self.number, error, AGAIN_S)
                await asyncio.sleep(AGAIN_S)
        finally:
            self._shell.metrics.standby_lag.pop(self.number, None)

    async def _hold(self) -> None:
        """Open the store and follow with it until something is wrong, or has to be judged anew."""
        store = await open_store(self._shell, self.number)
        try:
            await self._follow(store)
        finally:
            await in_thread(store.close)

    async def _follow(self, store: Store) -> None:
        shell, changelog = self._shell, self._changelog
        begin = (await shell.transport.begin_offsets([changelog]))[changelog]
        end = (await shell.transport.end_offsets([changelog]))[changelog]
        identity = await find_identity(shell.transport, changelog, begin, end)
        if identity is None:
            return  # nobody has opened the task yet
        judged = partial(judge, identity=identity, begin=begin, end=end, now_ms=shell.clock.now_ms())
        verdict = judged(store.position)
        log.info("standby of task %d: the state %s", self.number, verdict.reason)
        if not verdict.usable:
            await in_thread(store.clear)
            if shell.checkpoints is not None:
                verdict = await begin_from_checkpoint(shell.checkpoints, store, changelog, judged) or verdict
        follower = Follower(shell.transport, store, identity, changelog, store.position.next_offset if verdict.usable else begin)
        await follower.open()
        try:
            await self._step(follower, end)
        finally:
            await follower.close()
        follower.check()

    async def _step(self, follower: Follower, end: int) -> None:
        """Read on and on; return after a gap in which a deletion may have come and gone."""
        clock, last_ms = self._shell.clock, self._shell.clock.now_ms()
        while clock.now_ms() - last_ms < GAP_MS:
            last_ms = clock.now_ms()
            end = max(end, follower.read_up_to, follower.end)
            self._shell.metrics.standby_lag[self.number] = end - follower.read_up_to
            await follower.step(READ_TIMEOUT_S)
