"""What people tell the app while it runs: edits and erasures, through the control topic; and what must come of them.

They are obeyed at some point between two records, which nobody can foretell. But each is obeyed once, in their order, and all that comes
after that point follows from it: so there must be one way to put the commands of a user between its notes that gives every result that
came out, and the state at the end; and the audit topic says of each command, for each task that it went to, that it was obeyed.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import Random

import msgspec

from engine.control import Delete, Put, Report, encode_command, partitions_for
from engine.plan import Plan
from engine.records import OutputColumns, TopicPartition
from engine.runtime.transport.memory_broker import MemoryBroker
from engine.task import catalog_of
from engine.testing.clock import LoopClock
from state.catalog import entries_of
from state.hashing import partition_of
from tests.simulation.app import Note
from tests.simulation.ledger import Ledger
from tests.simulation.oracle import Rows

USERS = ("n0", "n1", "n2")
STATE = "tally/tally/count"
STEP = 1_000


@dataclass(frozen=True, slots=True)
class Given:
    """A command that was given: a number to count on from, or None for an erasure; and where it stands in the control partitions."""

    id: str
    user: str
    value: int | None
    offsets: Mapping[int, int]


class Commands:
    """Sends notes and commands to an app that has the tally, and nothing to one that has not."""

    def __init__(self, broker: MemoryBroker, clock: LoopClock, plan: Plan, random: Random, say: Callable[[str], None]) -> None:
        self._broker = broker
        self._clock = clock
        self._plan = plan
        self._random = Random(random.random())
        self._say = say
        self._notes: dict[str, list[int]] = {user: [] for user in USERS}
        self._given: list[Given] = []
        self._catalog = catalog_of(plan)

    def go_on_with(self, plan: Plan) -> None:
        """Send to the app as it is from now on."""
        self._plan, self._catalog = plan, catalog_of(plan)

    def send_some(self) -> None:
        """Send a few notes, and now and then a command."""
        if "tally" not in self._plan.graphs:
            return
        random = self._random
        for _ in range(random.choice([0, 1, 3])):
            user = random.choice(USERS)
            number = sum(map(len, self._notes.values()))
            self._notes[user].append(number)
            now_ms = self._clock.now_ms()
            partition = TopicPartition("notes", partition_of(user.encode(), self._plan.partitions))
            note = msgspec.json.encode(Note(number, user, now_ms))
            self._broker.produce({partition: OutputColumns([now_ms], [user.encode()], [note])})
        if random.random() < 0.2:
            self._command(random.choice(USERS))

    def _command(self, user: str) -> None:
        count = len(self._given) + 1
        name, value = f"command-{count}", None if self._random.random() < 0.4 else count * STEP
        command = Delete(id=name, key=user.encode()) if value is None else Put(id=name, state=STATE, key=user, value=value)
        self._say(f"{name}: user {user} is {'erased' if value is None else f'put to {value}'}")
        numbers = partitions_for(command, self._catalog, self._plan.partitions)
        columns = OutputColumns([self._clock.now_ms()], [name.encode()], [encode_command(command)])
        ends = self._broker.produce({TopicPartition(self._plan.control_topic, number): columns for number in numbers})
        self._given.append(Given(name, user, value, {partition.partition: end - 1 for partition, end in ends.items()}))

    # -- what must come of them

    def check(self, ledger: Ledger, rows: Rows, seen: Mapping[int, int] | None = None) -> list[str]:
        """Return what is wrong.

        Args:
            rows: Of the tally, by user.
            seen: How far the savepoint that was restored has seen of each control partition: what stands behind that, such as an erasure,
                was obeyed once more in the life that began with it, like the records of the sources.
        """
        if "tally" not in self._plan.graphs:
            return []
        errors = self._check_audit({} if seen is None else seen)
        for user, notes in self._notes.items():
            found = rows.get(user, [])
            if [row[0] for row in found] != notes:
                errors.append(f"tally, user {user}: notes {[row[0] for row in found]} instead of {notes}")
                continue
            number = partition_of(user.encode(), self._plan.partitions)
            given = [one for one in self._given if one.user == user]
            results, end = [(row[1], row[2]) for row in found], self._state(ledger, number, user)
            if not explains([one.value for one in given], results, end):
                told = [(one.id, one.value) for one in given]
                errors.append(f"tally, user {user}: commands {told} do not explain results {results} and state {end}")
        return errors

    def _check_audit(self, seen: Mapping[int, int]) -> list[str]:
        batch = self._broker.read(TopicPartition(self._plan.audit_topic, 0), 0)
        reports = [msgspec.json.decode(value or b"", type=Report) for value in batch.values]
        found = Counter((report.id, report.task, report.kind) for report in reports if report.id.startswith("command-"))
        wanted = Counter[tuple[str, int, str]]()
        for one in self._given:
            for number, offset in one.offsets.items():
                wanted[one.id, number, "delete" if one.value is None else "put"] += 2 if offset >= seen.get(number, offset + 1) else 1
        return [] if found == wanted else [f"the audit has {found - wanted} too many, and lacks {wanted - found}"]

    def _state(self, ledger: Ledger, number: int, user: str) -> tuple[int, int]:
        count = notes = 0
        entries: Iterator[tuple[bytes, bytes]] = iter(ledger.replay(number).items())
        for entry in entries_of(self._catalog, entries, user.encode()):
            if entry.spec.name == STATE:
                count = entry.shown()
            elif entry.spec.name == "tally/tally/notes":
                notes += 1
        return count, notes


def explains(commands: list[int | None], results: list[tuple[int, int]], end: tuple[int, int]) -> bool:
    """Return whether the commands, each obeyed once and in order, somewhere between the notes, give these results and this end.

    A command puts the count, or (None) erases the user. Results are (count, notes since the erasure), one a note.

        [1000], [(1, 1), (1001, 2)], end (1001, 2)     yes: obeyed between the two
        [1000], [(1, 1), (2, 2)], end (2, 2)           no: lost
        [1000], [(1001, 1), (1001, 2)], …              no: obeyed twice
    """
    ways = {(0, 0, 0)}
    for result in results:
        ways = {(done, count + 1, notes + 1) for done, count, notes in _onward(ways, commands) if (count + 1, notes + 1) == result}
    return (len(commands), *end) in _onward(ways, commands)


def _onward(ways: set[tuple[int, int, int]], commands: list[int | None]) -> set[tuple[int, int, int]]:
    """Return the ways with any number of further commands obeyed."""
    found = set(ways)
    for done, count, notes in ways:
        for place in range(done, len(commands)):
            value = commands[place]
            count, notes = (0, 0) if value is None else (value, notes)
            found.add((place + 1, count, notes))
    return found
