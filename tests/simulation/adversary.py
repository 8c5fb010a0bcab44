"""What is done to a world while its input comes: one misfortune after another, as its random numbers say."""

import asyncio
from collections.abc import Callable
from random import Random

from engine.records import TopicPartition
from engine.runtime.transport.memory import MemoryTransport
from tests.simulation.process import SESSION_S, Process
from tests.simulation.world import World

POINTS = (
    *(f"{request} {moment}" for request in (
        "fetch", "produce", "txn_offset_commit", "end_txn", "end_txn", "init_producer", "list_offsets", "offset_fetch", "join_group",
        "sync_group", "delete_records",
    ) for moment in ("before", "after")),
    *(f"{write} {moment}" for write in (
        "open", "apply", "apply", "flush", "clear", "close", "put", "adopt",
    ) for moment in ("before", "after")),
    "deliver before", "deliver before",
)  # fmt: skip


class Adversary:
    """Acts on a world until it is cancelled."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._random = Random(world.random.random())
        self._small_jumps = 0
        self._visits: set[asyncio.Task[None]] = set()
        harms: list[tuple[int, Callable[[Process], None]]] = [
            (3, self._kill),
            (7, self._arm),
            (2, self._stop),
            (3, self._freeze),
            (2, self._cut),
            (2, self._mute),
            (1, self._outage),
            (1, self._fence),
            (2, self._visit),
            (3, self._compact),
            (1, self._jump),
            (1, self._fill_disk),
            (2, self._start_another),
            (2, self._spoil),
        ]
        self._weights = [weight for weight, _ in harms]
        self._harms = [harm for _, harm in harms]
        self._pause_s = self._random.choice([0.3, 1.0, 3.0])

    async def act(self) -> None:
        """Do harm, again and again, until cancelled."""
        random, world = self._random, self._world
        try:
            while True:
                await asyncio.sleep(random.expovariate(1 / self._pause_s))
                running = world.running()
                for name in world.disks:
                    if all(process.name != name for process in running) and random.random() < 0.5:
                        self._start_again(name)
                if running:
                    random.choices(self._harms, self._weights)[0](random.choice(running))
        finally:
            for visit in self._visits:
                visit.cancel()
            if self._visits:
                await asyncio.wait(self._visits)

    # -- processes

    def _kill(self, process: Process) -> None:
        """Kill it some turns of the loop from now: between two awaits that take no time, too."""
        loop = asyncio.get_running_loop()

        def turn(left: int) -> None:
            if left:
                loop.call_soon(turn, left - 1)
            else:
                process.die("at some turn of the loop")

        loop.call_later(self._random.random() * 0.1, turn, self._random.randrange(40))

    def _arm(self, process: Process) -> None:
        process.bomb = (self._random.choice(POINTS), self._random.choice([0, 0, 0, 1, 3]))

    def _stop(self, process: Process) -> None:
        self._world.trace.say(f"{process.name} is asked to stop")
        process.runner.stop()

    def _start_again(self, name: str) -> None:
        disk, fate = self._world.disks[name], self._random.random()
        what = "with its disk"
        if fate < 0.25:
            disk.lose()
            what = "with an empty disk"
        elif fate < 0.45:
            disk.go_back()
            what = "with an older disk"
        self._world.trace.say(f"{name} comes again {what}")
        self._world.start(name)

    def _start_another(self, process: Process) -> None:
        if len(self._world.disks) < 4:
            self._world.start(f"w{len(self._world.disks)}")

    def _fill_disk(self, process: Process) -> None:
        process.full_disk = True

    def _spoil(self, process: Process) -> None:
        for _ in range(self._random.choice([1, 1, 3])):
            self._world.trace.say(f"in the place of checkpoints {self._world.bucket.spoil()}")

    # -- network

    def _freeze(self, process: Process) -> None:
        seconds = self._random.uniform(0.2, 2.5 * SESSION_S)
        self._world.trace.say(f"{process.name} is frozen for {seconds:.2f} s")
        process.line.thaws_s = self._now_s() + seconds

    def _cut(self, process: Process) -> None:
        seconds = self._random.uniform(0.2, 2.5 * SESSION_S)
        self._world.trace.say(f"{process.name} is cut off for {seconds:.2f} s")
        process.line.cut_ends_s = self._now_s() + seconds

    def _mute(self, process: Process) -> None:
        seconds = self._random.uniform(SESSION_S, 3 * SESSION_S)
        self._world.trace.say(f"{process.name} sends no heartbeats for {seconds:.2f} s")
        process.line.mute_ends_s = self._now_s() + seconds

    def _outage(self, process: Process) -> None:
        seconds = self._random.uniform(0.1, 2.0)
        self._world.trace.say(f"the broker is away for {seconds:.2f} s")
        self._world.weather.outage_ends_s = self._now_s() + seconds

    # -- the broker, and clocks

    def _fence(self, process: Process) -> None:
        number = self._random.randrange(self._world.choice.partitions)
        self._world.trace.say(f"a stranger fences task {number}")
        self._world.broker.init_producer(self._world.plan.transactional_id(number), 10.0)

    def _visit(self, process: Process) -> None:
        seconds = self._random.uniform(0.01, 2.0)
        self._world.trace.say(f"a visitor joins for {seconds:.2f} s")
        visit = asyncio.create_task(_Visitor(self._world).stay(seconds))
        self._visits.add(visit)
        visit.add_done_callback(self._visits.discard)

    def _compact(self, process: Process) -> None:
        self._world.trace.say("the changelog is compacted")
        self._world.ledger.compact()

    def _jump(self, process: Process) -> None:
        """Move the wall clock, far or so little that nobody can tell it from time that has passed."""
        far = self._random.random() < 0.6 or self._small_jumps == 3
        self._small_jumps += not far
        jump_ms = self._random.choice([1, -1]) * (self._random.choice([5_000, 86_400_000]) if far else self._random.randrange(500))
        process.clock.offset_ms += jump_ms
        self._world.furthest_ms = max(self._world.furthest_ms, process.clock.offset_ms)
        self._world.trace.say(f"the wall clock of {process.name} jumps by {jump_ms} ms")

    def _now_s(self) -> float:
        return self._world.clock.monotonic_s()


class _Visitor:
    """A member of the group that takes partitions and does nothing with them."""

    def __init__(self, world: World) -> None:
        self._topics = world.plan.input_topics
        self._transport = MemoryTransport(world.broker, group_id=world.plan.app_id, client_id="visitor", clock=world.clock)

    async def stay(self, seconds: float) -> None:
        """Join, and leave after a while."""
        await self._transport.subscribe(self._topics, self)
        try:
            await asyncio.sleep(seconds)
        finally:
            await self._transport.stop()

    async def on_revoked(self, partitions: frozenset[TopicPartition]) -> None:
        """Let go."""

    async def on_assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """Take, and do nothing."""
