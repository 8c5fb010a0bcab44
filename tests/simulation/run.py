"""One run from its seed to what is wrong with it."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from tests.simulation.adversary import Adversary
from tests.simulation.loop import SimulationLoop
from tests.simulation.process import task_factory
from tests.simulation.savepoints import Savepoints
from tests.simulation.verdict import check, check_closed, check_stores, read_rows
from tests.simulation.world import World

COMMAND = "python -m tests.simulation --seeds 1 --first {seed} --trace"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run has shown: `errors` is empty if all is well."""

    seed: int
    errors: list[str]
    trace: list[str]

    def report(self) -> str:
        """Return what is wrong, for people."""
        return "\n".join([f"seed {self.seed} failed; again: {COMMAND.format(seed=self.seed)}", *(f"  {error}" for error in self.errors)])


def run_seed(seed: int) -> Outcome:
    """Run one seed."""
    with asyncio.Runner(loop_factory=SimulationLoop) as runner:
        return runner.run(_run(seed))


async def _run(seed: int) -> Outcome:
    loop = asyncio.get_running_loop()
    loop.set_task_factory(task_factory)
    world = World(seed)
    loop.set_exception_handler(lambda _, context: world.trace.say(f"{context.get('message')}: {context.get('exception')}"))
    with world.folder, world.trace.listening():
        await _play(world)
    return Outcome(seed, world.errors, world.trace.lines)


async def _play(world: World) -> None:
    adversary, savepoints = Adversary(world), Savepoints(world, world.own)
    for number in range(world.random.choice([1, 2, 3])):
        world.start(f"w{number}")
    savepoints.start()
    await _under(adversary, _feed(world, is_last=savepoints.grow_to is None))
    await savepoints.stop()
    if savepoints.grow_to is not None:
        await _grow(world, savepoints)
        return
    await world.heal("everything that was in time")
    if not world.errors and not savepoints.taken:
        world.traffic.send_late(6)
        world.weather.calm = False
        await _under(adversary, asyncio.sleep(world.random.random() * 4))
        await world.heal("everything that was late")
    await _end(world, None)
    if savepoints.taken and not world.errors:
        await _live_again(world, savepoints, asyncio.sleep(world.own.random() * 6))


async def _grow(world: World, savepoints: Savepoints) -> None:
    """End the epoch when all is read, and go on with more partitions and more traffic."""
    world.traffic.end(0)  # no partition waits for one that has nothing (max_skew)
    await world.until_read()
    if not world.errors:
        await savepoints.end_epoch()
    for process in world.running():
        process.runner.stop()
    for process in world.processes:
        await process.until_gone()
    if not world.errors:
        await _live_again(world, savepoints, _feed(world, is_last=True))


async def _live_again(world: World, savepoints: Savepoints, meanwhile: Coroutine[Any, Any, None]) -> None:
    """Go on from a savepoint: all the input behind it, under further faults."""
    seen = await savepoints.restore()
    adversary = Adversary(world)
    for number in range(world.own.choice([1, 2])):
        world.start(f"w{number}").clock.offset_ms = world.furthest_ms
    world.weather.calm = False
    await _under(adversary, meanwhile)
    await world.heal(f"everything, from {savepoints.taken[-1].manifest.name} on")
    await _end(world, seen)


async def _end(world: World, commands_seen: dict[int, int] | None) -> None:
    """Stop everything, and note what is wrong."""
    await asyncio.sleep(1.0)  # for what comes out too often
    await world.stop_all()
    world.errors += check(world.broker, world.plan, world.ledger, world.expected(), world.spans)
    world.errors += world.commands.check(world.ledger, read_rows(world.broker, "tally", world.spans), commands_seen)
    world.errors += check_stores(world.ledger, world.processes) + check_closed(world.processes)


async def _feed(world: World, *, is_last: bool) -> None:
    """Send the input, with its end if it is the last; go on suffering for a while."""
    random, traffic = world.random, world.traffic
    silent_from = random.randrange(10, 40)
    for step in range(random.choice([25, 40, 60])):
        if world.choice.idle and step == silent_from:
            traffic.silent = frozenset(number for number in range(world.choice.partitions) if random.random() < 0.5)
        traffic.send_some()
        world.commands.send_some()
        await asyncio.sleep(random.random() * 0.5)
    if not world.choice.idle and is_last:
        traffic.end()
    await asyncio.sleep(random.random() * 6)


async def _under(adversary: Adversary, what: Coroutine[Any, Any, None]) -> None:
    """Wait for something while the adversary acts."""
    acting = asyncio.create_task(adversary.act(), name="adversary")
    await what
    acting.cancel()
    await asyncio.wait([acting])
    if not acting.cancelled():
        acting.result()
