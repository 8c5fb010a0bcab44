"""Savepoints while everything goes wrong, and a second life of the app from one of them.

    run ──── savepoint, taken under faults ──── end of the run, checked      at the cut: how far the outputs are
                        │
                        └─► restored: epoch 2, further faults ──► its end, checked

When the last cut is reported, and before anybody is told to go on, all tasks stand still with everything committed: the outputs up to there
belong to the savepoint. So these and what comes out of the second life must together be what must come out, nothing lost and
nothing doubled, whatever the first life did after the cut; and of the commands, those count that the savepoint has seen.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from random import Random

from engine.errors import StreamForgeError
from engine.records import TopicPartition
from engine.runtime.savepoint_restoring import restore_savepoint
from engine.runtime.savepoint_taking import Wish, take_savepoint
from engine.runtime.transport.memory import MemoryTransport
from state.remote import open_folder
from state.savepoint import Manifest, verify_savepoint
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
        self.taken: list[Taken] = []
        self._folder = Path(world.folder.name) / "savepoints"
        self._ends: dict[TopicPartition, int] = {}
        self._acting: asyncio.Task[None] | None = None

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

    async def _take(self, name: str) -> None:
        world = self._world
        timeout_s = self._random.choice([0.5, 2.0, 8.0])
        wish = Wish(name, str(self._folder), who="sim", cut_timeout_s=timeout_s, write_timeout_s=5.0)
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
        world = self._world
        self._ends = world.output_ends()
        world.trace.say("every task has its cut")

    async def restore(self) -> dict[int, int]:
        """Begin the second life of the world, from the last savepoint; return how far into the control topic it has seen."""
        world, taken = self._world, self.taken[-1]
        folder = open_folder(self._folder / taken.manifest.name)
        if verify_savepoint(folder) != taken.manifest:
            world.errors.append(f"{taken.manifest.name} has changed since it was taken")
        restored = await restore_savepoint(self._client(), world.plan, folder, world.clock)
        world.trace.say(f"{taken.manifest.name} is restored: epoch {restored.epoch.epoch}")
        world.begin_again(world.plan.in_epoch(restored.epoch.epoch), taken.ends)
        return {part.number: part.offsets[world.plan.control_topic] for part in taken.manifest.parts}
