"""Savepoints while everything goes wrong, and a second life of the app from one of them.

    run ──── savepoint, taken under faults ──── end of the run, checked      at the cut: how far the outputs are
                        │
                        └─► restored: epoch 2, further faults ──► its end, checked

When the last cut is reported, and before anybody is told to go on, all tasks stand still with everything committed: the outputs up to there
belong to the savepoint. So these and what comes out of the second life must together be what must come out, nothing lost and
nothing doubled, whatever the first life did after the cut; commands behind the cut are obeyed in both. In some seeds the last savepoint is
the end of the first life, when all sources are read to their ends; the second one has more partitions, and more traffic.
"""

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from engine.errors import StreamForgeError
from engine.records import TopicPartition
from engine.runtime.savepoint_restoring import restore_savepoint
from engine.runtime.savepoint_taking import Wish, take_savepoint
from engine.runtime.transport.memory import MemoryTransport
from state.remote import open_folder
from state.savepoint import Manifest, verify_savepoint
from tests.simulation.app import make_plan
from tests.simulation.world import World

SHARE = 0.3


@dataclass(frozen=True, slots=True)
class Taken:
    """A savepoint, and where the outputs ended at its cut."""

    manifest: Manifest
    ends: dict[TopicPartition, int]


class Savepoints:
    """Takes savepoints of a world, in some seeds, and restores one."""

    def __init__(self, world: World, random: Random) -> None:
        self._world = world
        self._random = random
        self.wanted = random.random() < SHARE
        can_grow = not world.choice.idle and not {"waits", "pages"} & set(world.choice.pipelines)  # each partition has its own time there
        self.grow_to = world.choice.partitions + random.choice([1, 3]) if self.wanted and can_grow and random.random() < 0.5 else None
        self.taken: list[Taken] = []
        self._folder = Path(world.folder.name) / "savepoints"
        self._ends: dict[TopicPartition, int] = {}
        self._acting: asyncio.Task[None] | None = None

    async def end_epoch(self) -> None:
        """Take the savepoint that is the end of the epoch; everything that was sent has been read."""
        for number in range(10):
            await self._take(f"last-{number}", stop=True)
            if self.taken and self.taken[-1].manifest.name.startswith("last"):
                return
        self._world.errors.append("no savepoint could be taken though nothing goes wrong")

    def start(self) -> None:
        """Begin to take savepoints, if this seed has any."""
        if self.wanted:
            self._acting = asyncio.create_task(self._act(), name="savepoints")

    async def stop(self) -> None:
        """Take no more; one that is under way is given up, as by a person who presses Ctrl-C."""
        if self._acting is not None:
            self._acting.cancel()
            await asyncio.wait([self._acting])
            if not self._acting.cancelled():
                self._acting.result()

    async def _act(self) -> None:
        number = 0
        while True:
            await asyncio.sleep(self._random.uniform(0.5, 6.0))
            number += 1
            await self._take(f"savepoint-{number}")

    async def _take(self, name: str, *, stop: bool = False) -> None:
        world = self._world
        timeout_s = 20.0 if stop else self._random.choice([0.5, 2.0, 8.0])
        wish = Wish(name, str(self._folder), who="sim", stop=stop, cut_timeout_s=timeout_s, write_timeout_s=5.0)
        try:
            manifest = await take_savepoint(self._client(), world.plan, wish, world.clock, self._at_the_cut)
        except StreamForgeError as error:
            world.trace.say(f"no {name}: {str(error).partition(':')[0]}")
            return
        world.trace.say(f"{name} is taken")
        self.taken.append(Taken(manifest, self._ends))

    def _client(self) -> MemoryTransport:
        return MemoryTransport(self._world.broker, group_id="", client_id="savepoints", clock=self._world.clock)

    def _at_the_cut(self, text: str) -> None:
        if "have their cut" not in text:
            return
        world = self._world
        self._ends = world.output_ends()
        world.trace.say("every task has its cut")

    async def restore(self) -> dict[int, int] | None:
        """Begin the second life of the world, from the last savepoint; return how far into the control topic it has seen, None for all."""
        world, taken = self._world, self.taken[-1]
        folder = open_folder(self._folder / taken.manifest.name)
        if verify_savepoint(folder) != taken.manifest:
            world.errors.append(f"{taken.manifest.name} has changed since it was taken")
        plan = world.plan if self.grow_to is None else make_plan(replace(world.choice, partitions=self.grow_to))
        restored = await restore_savepoint(self._client(), plan, folder, world.clock, grow=self.grow_to is not None)
        world.trace.say(f"{taken.manifest.name} is restored: epoch {restored.epoch.epoch}")
        seen = {part.number: part.offsets[plan.control_topic] for part in taken.manifest.parts}
        world.begin_again(plan.in_epoch(restored.epoch.epoch), taken.ends)
        return seen if self.grow_to is None else None
