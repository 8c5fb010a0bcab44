"""Sessions, a block at a time: the fast path of `engine.operators.window_sessions`.

A session that ends at r closes when the watermark reaches r + delay. A record whose time is above the watermark before it less the
delay can touch no session that is closed by then: such a session ends before the record begins. So if that holds for every record
of a block, nothing depends on when within the block a session closes: records are added first, in the order of their arrival, and
what is due by the end of the block closes then. That is so for every record within the bound of out-of-orderness, mostly all.

    watermark before    0    5    5   40            gap 10, lateness 0: delay -1, so each time must be above before + 1
    times               9   12    8   55            sessions [8, 22) and [55, 65); with a watermark of 50 the first one closes

While a block is worked on, the sessions of a key are a chain, the latest one first: that is the one which a record mostly extends,
or follows. As stored, with one session, both forms are the same.

tests/engine/operators/test_session_blocks.py compares this with the path that looks at the watermark before each record.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from operator import add, gt
from typing import Any, cast

from engine.agg.folding import Accumulators, Folding
from engine.block import Block
from engine.operators.close_index import CloseIndex
from engine.operators.window_plan import SpanResult
from state.overlay import KeyedCells

Session = tuple[int, int, Accumulators]
"""Start, end, contents."""

StoredSessions = tuple[int | None, int, int, Accumulators, tuple[Session, ...]]
"""Pane of the entry in the index, the first session, which mostly is the only one, and the others."""

Chain = tuple[int | None, int, int, Accumulators, Any]
"""Pane of the entry in the index (None: nothing is stored), the last session, and a chain of the earlier ones: () or (start, end,
contents, chain)."""

Insert = Callable[[list[Session], int, int, tuple[Any, ...]], None]


def is_quick(block: Block, delay_ms: int) -> bool:
    """Return whether no record of a block can touch a session that is closed before it."""
    timestamps = block.timestamps
    if not len(timestamps) or min(timestamps) > block.watermark - delay_ms:
        return True
    return all(map(gt, map(add, timestamps, repeat(delay_ms)), block.before))


class SessionBlocks:
    """Adds whole blocks to the sessions of their keys, and closes what is due.

    Args:
        insert: Adds a record, as `folding.records` gives it, to sessions in order of their starts.
        delay_ms: From a session's end to when it closes.
    """

    def __init__(
        self,
        sessions: KeyedCells[Any, StoredSessions],
        closes: CloseIndex,
        folding: Folding,
        insert: Insert,
        wire: Callable[[Any], bytes],
        delay_ms: int,
    ) -> None:
        self._sessions, self._closes, self._folding, self._insert = sessions, closes, folding, insert
        self._wire, self._delay_ms = wire, delay_ms

    def process(self, block: Block, ends: Sequence[int]) -> list[SpanResult]:
        """Take a block for which `is_quick` holds; return the sessions that close, in no order.

        Args:
            ends: Where the session of each record alone would end.
        """
        chains: dict[Any, Chain | None] = {}
        if len(block):
            chains = self._stored(block.keys)
            columns = self._folding.columns(block.values)
            self._folding.fold_spans(chains, self._add, block.keys, block.timestamps, ends, *columns)
        self._take_due(block.watermark, chains)
        fired: list[Any] = []
        self._settle(cast(dict[Any, Chain], chains), block.watermark, fired)
        return fired

    def _stored(self, keys: Sequence[Any]) -> dict[Any, Chain | None]:
        """Return what is stored of each key."""
        different = dict.fromkeys(keys)
        self._sessions.read(different)
        chains: dict[Any, Chain | None] = dict(zip(different, map(self._sessions.get, different), strict=True))
        for key in [key for key, stored in chains.items() if stored is not None and stored[4]]:
            chains[key] = _chain(cast(StoredSessions, chains[key]))
        return chains

    def _add(self, chain: Chain, start: int, end: int, record: tuple[Any, ...]) -> Chain:
        """Add a record that is not simply next."""
        sessions = _sessions(chain)
        self._insert(sessions, start, end, record)
        return _chain((chain[0], *sessions[0], tuple(sessions[1:])))

    def _take_due(self, until: int, chains: dict[Any, Chain | None]) -> None:
        """Take what is due out of the index, and see that its sessions are there."""
        get, delay_ms = self._sessions.get, self._delay_ms

        def close_of(key: Any) -> int:
            chain = chains.get(key)
            if chain is None:
                stored = get(key)
                assert stored is not None, "the index has an entry for a key without sessions"
                return stored[2] + delay_ms
            earlier = chain
            while earlier[-1]:
                earlier = earlier[-1]
            return int(earlier[-3]) + delay_ms

        closing = self._closes.take(until, close_of)
        self._sessions.read(closing)
        for key in closing:
            if key not in chains:
                stored = get(key)
                assert stored is not None, "the index has an entry for a key without sessions"
                chains[key] = _chain(stored) if stored[4] else stored

    def _settle(self, chains: Mapping[Any, Chain], until: int, fired: list[Any]) -> None:
        """Close sessions that are due, and store the others with their place in the index."""
        wire, delay_ms, closes = self._wire, self._delay_ms, self._closes
        width_ms, gone_before = closes.width_ms, closes.passed_before(until)
        safe = until - delay_ms
        kept: dict[Any, StoredSessions | None] = {}
        entered: dict[int, list[Any]] = {}
        fire = fired.append
        for key, (indexed, left, right, accumulators, earlier) in chains.items():
            if right <= safe:
                name = wire(key)
                fire((right + delay_ms, name, key, left, right, accumulators))
                while earlier:
                    left, right, accumulators, earlier = earlier
                    fire((right + delay_ms, name, key, left, right, accumulators))
                if indexed is not None:
                    kept[key] = None
                continue
            others: tuple[Session, ...] = ()
            if earlier:
                sessions = _sessions((indexed, left, right, accumulators, earlier))
                name = wire(key)
                while sessions[0][1] <= safe:
                    start, end, contents = sessions.pop(0)
                    fire((end + delay_ms, name, key, start, end, contents))
                    indexed = None
                (left, right, accumulators), *rest = sessions
                others = tuple(rest)
            pane = (right + delay_ms) // width_ms * width_ms
            if indexed is None or indexed < gone_before or (indexed <= until and closes.is_passed(indexed, until)):
                if pane in entered:
                    entered[pane].append(key)
                else:
                    entered[pane] = [key]
            elif pane < indexed:
                closes.delete(indexed, key)
                entered.setdefault(pane, []).append(key)
            else:
                if others:
                    closes.look_at(indexed, key, right + delay_ms)
                pane = indexed
            kept[key] = (pane, left, right, accumulators, others)
        self._sessions.put_many(kept)
        closes.enter(entered)


def _chain(stored: StoredSessions) -> Chain:
    """Return stored sessions as a chain."""
    indexed, left, right, accumulators, others = stored
    chain: Any = ()
    for session in others:
        chain = (left, right, accumulators, chain)
        left, right, accumulators = session
    return indexed, left, right, accumulators, chain


def _sessions(chain: Chain) -> list[Session]:
    """Return the sessions of a chain by their starts."""
    _, left, right, accumulators, earlier = chain
    found = [(left, right, accumulators)]
    while earlier:
        left, right, accumulators, earlier = earlier
        found.append((left, right, accumulators))
    found.reverse()
    return found


__all__ = ["Session", "SessionBlocks", "StoredSessions", "is_quick"]
