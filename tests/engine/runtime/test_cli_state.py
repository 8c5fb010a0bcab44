"""State from the command line: stores of a stopped worker and savepoints are shown, exported, imported; edits make new savepoints."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from click.testing import CliRunner

from engine.control import Delete, Report
from engine.errors import UnavailableError
from engine.runtime.app import App
from engine.runtime.cli.connection import user_name
from engine.runtime.cli.root import main
from engine.runtime.loading import load_app
from engine.runtime.savepoint_taking import Wish
from engine.testing import TestDriver
from engine.testing.clock import virtual_time
from state.remote import open_folder
from state.savepoint import verify_savepoint
from tests.engine.runtime.test_savepoints import restore, take
from tests.engine.runtime.worker_world import World, eventually, numbering

PROGRAM = """
from engine import App
from tests.engine.runtime.worker_world import Click, Numbering

app = App("app", broker="memory://", partitions=2)
clicks = app.source("clicks", Click, key="user", time="ts")


@app.pipeline(clicks)
def number(clicks):
    return clicks.process(Numbering).to("numbers")
"""

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run `streamforge state …` with the app; return what it prints, or what it refuses."""
    program = tmp_path / "numbering_app.py"
    program.write_text(PROGRAM)

    def run(*arguments: str, group: str = "state", app: bool = True) -> str:
        given = [group, *arguments, *(["-A", str(program)] if app else [])]
        return CliRunner().invoke(main, given).output

    return run


async def savepoint(folder: Path, **clicks: int) -> World:
    """Take a savepoint in which users have so many clicks."""
    world = World(numbering(2))
    worker = world.worker()
    for user, times in clicks.items():
        world.click(user, times=times)
    await world.until(**clicks)
    await take(world, folder, stop=True)
    await worker.stop()
    return world


def everything(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@virtual_time
async def test_state_of_a_savepoint_is_shown_decoded(tmp_path: Path, run: Run) -> None:
    await savepoint(tmp_path, ann=3, bob=5)
    at = ["--savepoint", str(tmp_path / "one")]
    expected = {"pipeline": "number", "operator": "numbering", "state": "count", "key": "bob", "value": 5}
    assert lines(run("get", "bob", *at)) == [expected]
    assert sorted((line["key"], line["value"]) for line in lines(run("scan", *at))) == [("ann", 3), ("bob", 5)]
    assert len(lines(run("scan", *at, "--limit", "1"))) == 1
    assert "nothing of key 'eve'" in run("get", "eve", *at)
    assert "there is no state 'number/numbering/none'; there are number/numbering/clock-timers" in run(
        "scan", *at, "--state", "number/numbering/none"
    )


def test_state_of_a_stopped_store_is_shown_and_not_edited(tmp_path: Path, run: Run) -> None:
    app = load_app(str(tmp_path / "numbering_app.py"), App)
    with TestDriver(app, partitions=2, store="rocks") as driver:
        for user in ("ann", "bob", "ann"):
            driver.send("clicks", {"user": user, "page": "p", "ts": 1})
        driver.restart()
        for store in driver._stores:
            store.close()
        at = ["--store", str(driver._folder)]
        assert sorted((line["key"], line["value"]) for line in lines(run("scan", *at))) == [("ann", 2), ("bob", 1)]
        for edit in (["put", "7", "--key", "ann", "--state", "number/numbering/count"], ["delete", "--key", "ann", "--everywhere"]):
            assert "copies of the changelog" in run(*edit, *at)
    assert "holds no stores" in run("scan", "--store", str(tmp_path / "none"))
    assert "say where" in run("scan")


@virtual_time
async def test_edited_savepoint_is_a_new_one_and_restores_with_the_edits(tmp_path: Path, run: Run) -> None:
    world = await savepoint(tmp_path, ann=3, bob=5, eve=2)
    one = ["--savepoint", str(tmp_path / "one"), "--as", str(tmp_path / "two"), "--who", "eve", "--why", "counted twice"]
    assert "1 entries changed" in run("put", "1", "--key", "ann", "--state", "number/numbering/count", *one)
    two = ["--savepoint", str(tmp_path / "two"), "--as", str(tmp_path / "three")]
    assert "1 entries changed" in run("delete", "--key", "bob", "--everywhere", *two)
    assert (verify_savepoint(open_folder(tmp_path / "two")).who, verify_savepoint(open_folder(tmp_path / "one")).who) == ("eve", "")
    assert "exists already" in run("delete", "--key", "bob", "--everywhere", *two)
    assert "say --as" in run("delete", "--key", "bob", "--everywhere", *two[:2])
    assert "Expected `int`" in run("put", '"x"', "--key", "ann", "--state", "number/numbering/count", *two[:3], str(tmp_path / "four"))
    assert not (tmp_path / "four").exists()
    await restore(world, tmp_path, numbering(2), name="three")
    worker = world.worker("w2")
    for user in ("ann", "bob", "eve"):
        world.click(user)
    await eventually(lambda: [world.numbers()[user][-1] for user in ("ann", "bob", "eve")] == [2, 1, 3])
    await worker.stop()


@virtual_time
async def test_delete_of_what_is_not_there_fails(tmp_path: Path, run: Run) -> None:
    await savepoint(tmp_path, ann=3)
    to = ["--savepoint", str(tmp_path / "one"), "--as", str(tmp_path / "two")]
    for where in (["--everywhere"], ["--state", "number/numbering/count"]):
        assert "Error: there is nothing of key 'eve'" in run("delete", "--key", "eve", *where, *to)
        assert not (tmp_path / "two").exists()
    assert "Error: there is nothing of key '\\udcff'" in run("get", "\udcff", *to[:2])


def test_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr("getpass.getuser", nameless)
    monkeypatch.setattr("os.getuid", lambda: 12345)
    assert user_name() == "12345"


def test_delete_from_a_running_app_takes_the_text_along_and_fails_for_nothing(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "numbering_app.py"
    program.write_text(PROGRAM.replace("memory://", "kafka://localhost:1"))
    told: list[Delete] = []

    async def tell(_target: object, command: Delete) -> list[Report]:
        told.append(command)
        return [Report(id=command.id, kind="delete", task=task, done_ms=1, entries=int(command.key == b"007")) for task in (0, 1)]

    monkeypatch.setattr("engine.runtime.cli.state._tell", tell)
    delete = ["delete", "--everywhere", "--who", "eve", "--key"]
    assert "2 entries in task 0, 1; committed" in run(*delete, "007")
    assert "Error: there is nothing of key 'ann'" in run(*delete, "ann")
    assert [(command.key, command.is_text) for command in told] == [(b"007", True), (b"ann", True)]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@virtual_time
async def test_exported_state_comes_back_as_it_was(tmp_path: Path, run: Run, suffix: str) -> None:
    await savepoint(tmp_path, **{f"user-{n}": n % 4 + 1 for n in range(40)})
    file = tmp_path / f"entries.{suffix}"
    assert "40 entries written" in run("export", str(file), "--savepoint", str(tmp_path / "one"))
    reader = "read_json" if suffix == "jsonl" else "read_parquet"
    totals = duckdb.connect().execute(f"SELECT count(*), sum(CAST(value AS INT)) FROM {reader}('{file}')").fetchall()
    assert totals == [(40, 100)]
    to = ["--savepoint", str(tmp_path / "one"), "--as", str(tmp_path / "two")]
    assert "0 entries changed" in run("import", str(file), *to)
    for part in verify_savepoint(open_folder(tmp_path / "one")).parts:
        assert (tmp_path / "two" / part.file).read_bytes() == (tmp_path / "one" / part.file).read_bytes()


@virtual_time
async def test_savepoint_commands_list_verify_and_delete(tmp_path: Path, run: Run) -> None:
    await savepoint(tmp_path, ann=3)
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "0.entries").write_bytes(b"")
    at = ["--from", str(tmp_path)]
    listed = run("list", *at, group="savepoint", app=False).splitlines()
    assert listed[0].startswith("torn: no savepoint") and listed[1].startswith("one: app, epoch 1, ")
    assert "all checksums are right" in run("verify", "one", *at, group="savepoint", app=False)
    (row,) = [row for row in json.loads(run("list", *at, "--json", group="savepoint", app=False)) if isinstance(row, dict)]
    assert (row["name"], row["app"], row["partitions"]) == ("one", "app", 2)
    file = verify_savepoint(open_folder(tmp_path / "one")).parts[0].file
    (tmp_path / "one" / file).write_bytes(b"SFSP\x01")
    assert f"{file} is damaged" in run("verify", "one", *at, group="savepoint", app=False)
    assert "is deleted" in run("delete", "one", *at, "--yes", group="savepoint", app=False)
    assert "there is no savepoint" in run("delete", "one", *at, "--yes", group="savepoint", app=False)
    assert "memory:// lives inside one process" in run("create", "one", *at, group="savepoint")


@virtual_time
async def test_savepoint_commands_take_names_and_delete_nothing_but_savepoints(tmp_path: Path, run: Run) -> None:
    await savepoint(tmp_path / "kept", ann=3)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("precious")
    (tmp_path / "kept" / "notes").mkdir()
    for name in ("mine.part", "0.entries"):
        (tmp_path / "kept" / "notes" / name).write_text("precious")
    (tmp_path / "kept" / "link").symlink_to(tmp_path / "kept" / "one")
    (tmp_path / "kept" / "deep" / "sub").mkdir(parents=True)
    (tmp_path / "kept" / "torn").mkdir()
    (tmp_path / "kept" / "torn" / ".0.entries.part").write_bytes(b"SFSP")
    before = everything(tmp_path)
    at = ["--from", str(tmp_path / "kept")]
    for name in ("", ".", "..", "../other", str(tmp_path / "other"), "one/", "on\ne"):
        assert "cannot be used: it names a folder" in run("delete", name, *at, "--yes", group="savepoint", app=False)
        assert "cannot be used: it names a folder" in run("verify", name, *at, group="savepoint", app=False)
    for name, shown in (("notes", "mine.part"), ("link", "a link to"), ("deep", "sub/")):
        refused = run("delete", name, *at, "--yes", group="savepoint", app=False)
        assert "is no savepoint, nothing was deleted: it holds" in refused and shown in refused
    assert "there is no savepoint" in run("delete", "none", *at, "--yes", group="savepoint", app=False)
    assert everything(tmp_path) == before
    for name in ("torn", "one"):
        assert "is deleted" in run("delete", name, *at, "--yes", group="savepoint", app=False)
        assert not (tmp_path / "kept" / name).exists()


def test_create_takes_both_timeouts(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    wishes: list[Wish] = []

    async def refuse(target: Any, wish: Wish, *, quiet: bool) -> None:
        wishes.append(wish)
        raise UnavailableError("not now")

    monkeypatch.setattr("engine.runtime.cli.savepoint._create", refuse)
    monkeypatch.setenv("STREAMFORGE_BROKER", "kafka://127.0.0.1:1")
    at = ["--to", str(tmp_path)]
    assert "not now" in run("create", "one", *at, "--timeout", "5", "--write-timeout", "90", group="savepoint")
    assert "not now" in run("create", "one", *at, group="savepoint")
    assert [(wish.cut_timeout_s, wish.write_timeout_s) for wish in wishes] == [(5.0, 90.0), (60.0, 3_600.0)]
    assert "Invalid value for '--write-timeout'" in run("create", "one", *at, "--write-timeout", "0", group="savepoint")


def test_list_of_savepoints_says_what_is_not_there(tmp_path: Path) -> None:
    missing, file = tmp_path / "missing", tmp_path / "file"
    file.write_text("")
    for folder in (missing, file):
        result = CliRunner().invoke(main, ["savepoint", "list", "--from", str(folder)])
        assert (result.exit_code, result.output) == (1, f"Error: there is no folder {folder}\n")
    result = CliRunner().invoke(main, ["savepoint", "list", "--from", str(tmp_path)])
    assert (result.exit_code, result.output) == (0, f"there are no savepoints in {tmp_path}\n")
