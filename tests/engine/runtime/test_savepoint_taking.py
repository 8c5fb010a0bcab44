"""Taking a savepoint when something goes wrong at a bad moment: what is complete stays, what is not leaves nothing behind."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from engine import ValueState
from engine.control import Command, End
from engine.errors import ConfigError, UnavailableError
from engine.runtime import savepoint_taking, savepointing
from engine.testing.clock import virtual_time
from state.remote import open_folder
from state.savepoint import verify_savepoint
from tests.engine.runtime.test_savepoints import failures, restore, take
from tests.engine.runtime.worker_world import Numbering, Worker, World, eventually, numbering

pytestmark = pytest.mark.thorough


async def clicked(world: World) -> None:
    """Send some clicks, and wait until they have been numbered."""
    world.click("ann", times=3)
    world.click("bob", times=5)
    await world.until(ann=3, bob=5)


async def ends_and_is_restored(world: World, folder: Path, workers: list[Worker]) -> None:
    """Check that the epoch is over for every task, and that the app goes on from the savepoint."""
    await eventually(lambda: sum(len(failures(worker)) for worker in workers) >= 2)
    assert all("ended with savepoint 'one': restore it" in failure for worker in workers for failure in failures(worker))
    for worker in workers:
        await worker.stop()
    verify_savepoint(open_folder(folder / "one"))
    await restore(world, folder, numbering(2))
    again = world.worker("again")
    world.click("ann")
    await eventually(lambda: world.numbers()["ann"] == [1, 2, 3, 4])
    await again.stop()


@pytest.mark.parametrize("what", ["ctrl-c", "killed", "late"])
@virtual_time
async def test_savepoint_that_is_the_end_stays_whatever_happens_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    world = World(numbering(2))
    workers = [world.worker("w1"), world.worker("w2")]
    await eventually(lambda: all(len(worker.running_numbers()) == 1 for worker in workers))
    await clicked(world)
    tell = savepoint_taking.tell

    async def told(transport: Any, plan: Any, command: Command, numbers: Any, now_ms: int) -> None:
        if isinstance(command, End):
            assert (tmp_path / "one" / "_metadata.json").exists()
            if what != "ctrl-c":
                await workers.pop().kill()  # its task is opened anew by the other worker, and says `failed` there
        await tell(transport, plan, command, numbers, now_ms)
        if what == "ctrl-c" and isinstance(command, End):
            taking.cancel()

    monkeypatch.setattr(savepoint_taking, "tell", told)
    taking = asyncio.create_task(take(world, tmp_path, stop=True, cut_timeout_s=1.0 if what == "late" else 60.0))
    if what == "ctrl-c":
        with pytest.raises(asyncio.CancelledError):
            await taking
    else:
        assert (await taking).name == "one"
    await ends_and_is_restored(world, tmp_path, workers)


@virtual_time
async def test_savepoint_whose_end_cannot_be_told_says_that_it_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(numbering(2))
    worker = world.worker()
    await clicked(world)
    tell = savepoint_taking.tell

    async def told(transport: Any, plan: Any, command: Command, numbers: Any, now_ms: int) -> None:
        if isinstance(command, End):
            await tell(transport, plan, command, [0], now_ms)
            raise UnavailableError("the broker is away")
        await tell(transport, plan, command, numbers, now_ms)

    monkeypatch.setattr(savepoint_taking, "tell", told)
    with pytest.raises(UnavailableError, match=r"'one' is complete and stays in .*one, but .* \(the broker is away\): stop the workers"):
        await take(world, tmp_path, stop=True)
    await eventually(lambda: len(failures(worker)) == 1)
    await worker.stop()
    await restore(world, tmp_path, numbering(2))
    again = world.worker("again")
    world.click("ann")
    world.click("bob")
    await eventually(lambda: world.numbers() == {"ann": [1, 2, 3, 4], "bob": [1, 2, 3, 4, 5, 6]})
    await again.stop()


@virtual_time
async def test_savepoint_whose_parts_were_written_elsewhere_is_none_and_the_app_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(numbering(2))
    worker = world.worker()
    await clicked(world)
    monkeypatch.setattr(savepointing, "open_folder", lambda url: open_folder(str(url).replace("here", "there")))
    with pytest.raises(UnavailableError, match=r"tasks 0, 1 wrote elsewhere, their parts are not in .*here/one: give a place"):
        await take(world, tmp_path / "here", stop=True)
    world.click("ann")
    await world.until(ann=4, bob=5)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(savepointing, "open_folder", lambda url: open_folder(url) if url == str(tmp_path / "near/one") else None)
    await take(world, Path("near"))
    verify_savepoint(open_folder(tmp_path / "near" / "one"))
    await worker.stop()


@pytest.mark.parametrize("late_s", [0.0, 0.01, 0.1, 0.2, 0.4])
@virtual_time
async def test_two_savepoints_of_one_name_at_once_leave_a_sound_one_or_none(tmp_path: Path, late_s: float) -> None:
    world = World(numbering(4))
    worker = world.worker()
    await clicked(world)

    async def second() -> Any:
        await asyncio.sleep(late_s)
        return await take(world, tmp_path)

    results = await asyncio.gather(take(world, tmp_path), second(), return_exceptions=True)
    taken = [one for one in results if not isinstance(one, BaseException)]
    if taken:
        assert verify_savepoint(open_folder(tmp_path / "one")) in taken
    else:
        assert open_folder(tmp_path / "one").names() == []
    await take(world, tmp_path, name="two")
    await worker.stop()


@virtual_time
async def test_savepoint_fails_at_once_when_a_worker_dies_while_it_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(numbering(2))
    workers = [world.worker("w1"), world.worker("w2")]
    await eventually(lambda: all(len(worker.running_numbers()) == 1 for worker in workers))
    await clicked(world)
    write = savepointing.TaskSavepoints._write

    async def slow(self: Any, *arguments: Any) -> Any:
        await asyncio.sleep(30)
        return await write(self, *arguments)

    monkeypatch.setattr(savepointing.TaskSavepoints, "_write", slow)
    begun_s = world.clock.monotonic_s()
    taking = asyncio.create_task(take(world, tmp_path))
    await asyncio.sleep(5)
    await workers.pop().kill()
    with pytest.raises(UnavailableError, match="was opened anew meanwhile"):
        await taking
    assert world.clock.monotonic_s() - begun_s < 120
    monkeypatch.undo()
    await take(world, tmp_path, name="two")
    await workers.pop().stop()


@virtual_time
async def test_savepoint_of_an_app_that_is_lost_while_it_writes_is_given_up_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(numbering(2))
    worker = world.worker()
    await worker.until_running(0, 1)
    await clicked(world)

    async def never(self: Any, *arguments: Any) -> Any:
        await asyncio.sleep(10_000)

    monkeypatch.setattr(savepointing.TaskSavepoints, "_write", never)
    begun_s = world.clock.monotonic_s()
    taking = asyncio.create_task(take(world, tmp_path, write_timeout_s=20.0))
    await asyncio.sleep(5)
    await worker.kill()
    with pytest.raises(UnavailableError, match="tasks 0, 1 said nothing within 20 s; do they run"):
        await taking
    assert world.clock.monotonic_s() - begun_s < 30
    assert not open_folder(tmp_path / "one").names()


@virtual_time
async def test_restore_refuses_values_of_another_type_before_anything_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(numbering(2))
    worker = world.worker()
    await clicked(world)
    await take(world, tmp_path, stop=True)
    await worker.stop()
    topics = world.broker.topics()
    monkeypatch.setattr(Numbering, "count", ValueState(str, default=""))
    with pytest.raises(ConfigError, match=r"does not fit: 2 entries: .*count"):
        await restore(world, tmp_path, numbering(2))
    assert world.broker.topics() == topics
    monkeypatch.setattr(Numbering, "count", ValueState(str, default="", upgrade=str))
    await restore(world, tmp_path, numbering(2))
