"""A store follows its changelog partition: what a restore does to its end, and a standby goes on doing.

    read batch 1 │ read batch 2 │ read batch 3 │
                 │ apply 1      │ apply 2      │ apply 3       a batch is written in a thread while the next one is read

Entries go from the columns of a batch into one WriteBatch, together with the position behind them: whenever it ends, the store is what
a reader of the log up to there has seen.
"""

import asyncio

from engine.records import TopicPartition
from engine.runtime.threads import in_thread
from engine.runtime.transport.protocol import PartitionReader, Transport
from state.changelog import is_identity, restore_changes
from state.store import Position, Store

IN_THREAD_RECORDS = 1_000


class Follower:
    """Reads a changelog partition into a store that nobody else writes to.

    Attributes:
        entries: Entries read so far.
        read_up_to: Position in the log behind what was read; it is in the store after `close`.
        end: End of the log as the last answer told it, -1 before.
    """

    def __init__(self, transport: Transport, store: Store, identity: bytes, changelog: TopicPartition, start: int) -> None:
        self.entries = 0
        self.read_up_to = start
        self.end = -1
        self._transport = transport
        self._store = store
        self._identity = identity
        self._changelog = changelog
        self._time_ms = store.position.time_ms
        self._reader: PartitionReader | None = None
        self._applying: asyncio.Task[None] | None = None
        self._failure: BaseException | None = None

    async def open(self) -> None:
        """Begin to read."""
        self._reader = await self._transport.open_reader(self._changelog, self.read_up_to)

    async def step(self, timeout_s: float) -> bool:
        """Read a batch and write it, or begin to; return whether there was one.

        Raises:
            StateError: A batch could not be written, or the position lies outside the log.
        """
        assert self._reader is not None
        batch = await self._reader.read(timeout_s)
        await self._settle()
        self.check()
        if batch is None:
            return False
        changes = restore_changes(batch.keys, batch.values)
        self._time_ms = batch.timestamps[-1] if len(batch) else self._time_ms
        position = Position(self._identity, batch.next_offset, self._time_ms)
        self.read_up_to = batch.next_offset
        self.end = batch.high_watermark
        self.entries += len(batch)
        if len(batch) and is_identity(batch.keys[0] or b""):
            self.entries -= 1
        if len(batch) < IN_THREAD_RECORDS:
            self._store.apply(changes, position)
        else:
            self._applying = asyncio.create_task(in_thread(self._store.apply, changes, position))
        return True

    async def close(self) -> None:
        """Wait until what was read is written, and let go of the reader; `check` tells whether it was."""
        try:
            await self._settle()
        finally:
            if self._reader is not None:
                await self._reader.close()

    def check(self) -> None:
        """Raise what went wrong with the last batch."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    async def _settle(self) -> None:
        """Wait for the batch that is being written; a caller that is cancelled waits too: a thread cannot be stopped."""
        applying, self._applying = self._applying, None
        if applying is None:
            return
        try:
            await asyncio.shield(applying)
        except asyncio.CancelledError:
            await asyncio.wait([applying])
            raise
        except Exception as error:  # noqa: BLE001  # `check` raises it
            self._failure = error
