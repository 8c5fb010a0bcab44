"""`streamforge cep`: what it reads and refuses without a broker, and `explain` over HTTP of the genuine app."""

import asyncio
import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from engine import App, Sink, Stream
from engine.errors import ConfigError, RecordError
from engine.runtime.cli.root import main
from engine.runtime.rule_topics import Listed, find_topic, list_rules, put_rules, read_rules, remove_rule
from engine.runtime.transport.memory import MemoryTransport
from engine.runtime.transport.memory_broker import MemoryBroker, MemoryBrokers
from state.memory import MemoryStore
from tests.engine.cep.rules_world import Event, rule, stage
from tests.ports import free_port

PROGRAM = Path(__file__).with_name("rules_program.py")
ONE, TWO = rule("one", 1, stage("a")), rule("two", 3, stage("a"))


@pytest.mark.parametrize("raw", [ONE + b"\n" + TWO, b"[" + ONE + b"," + TWO + b"]", b"\n" + ONE + b"\n\n" + TWO + b"\n"])
def test_cep_rules_are_read_as_a_list_or_one_a_line(raw: bytes) -> None:
    assert [(one.id, one.version) for one in read_rules(raw)] == [("one", 1), ("two", 3)]
    assert read_rules(msgspec.json.format(ONE)) == read_rules(ONE)


def test_cep_rules_are_read_from_the_record_lines_that_run_takes() -> None:
    lines = b'{"key": "one", "value": ' + ONE + b'}\n{"value": ' + TWO + b', "headers": {}}'
    assert read_rules(lines) == read_rules(ONE + b"\n" + TWO)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"key": "other", "value": ' + ONE + b"}", "must be the same"),
        (b'{"key": "one", "value": null}', "cep rules remove ID"),
        (b'{"key": "one", "value": {"id": "one"}}', "missing required field `version`"),
    ],
)
def test_cep_record_lines_without_a_rule_are_refused(line: bytes, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        read_rules(line)


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", ONE + b"\nnonsense", b'{"id": "x"}'])
def test_cep_rules_that_are_none_are_refused(raw: bytes) -> None:
    with pytest.raises(RecordError):
        read_rules(raw)


def test_cep_topic_of_rules_is_that_of_the_app_or_the_one_named() -> None:
    app = App("two-topics", broker="memory://")
    events = app.source("events", Event, key="user", time="ts")
    first, second = app.rules("first"), app.rules("second")
    app.pipeline(events, name="one")(lambda events: events.detect(rules=first).to("alerts"))
    with pytest.raises(ConfigError, match="first, second"):
        find_topic(app, None)
    assert list(find_topic(app, "first").frames) == ["one/detect"]
    with pytest.raises(ConfigError, match="no pipeline detects the rules of 'second'"):
        find_topic(app, second.spec.topic)
    with pytest.raises(ConfigError, match="which topic"):
        find_topic(None, None)


async def test_cep_rules_put_list_and_remove_on_a_topic() -> None:
    topic = find_topic(App_with_rules(), None)
    transport = MemoryTransport(MemoryBroker(), group_id="")
    await transport.start()
    with pytest.raises(ConfigError, match="does not exist"):
        await list_rules(transport, topic)
    await put_rules(transport, topic, read_rules(TWO + b"\n" + ONE), 1)
    await put_rules(transport, topic, read_rules(ONE), 2)  # the same again
    with pytest.raises(RecordError, match="version 3; a change of it needs a higher one"):
        await put_rules(transport, topic, read_rules(rule("new", 1, stage("a")) + b"\n" + rule("two", 3, stage("b"))), 3)
    assert [one.id for one in await list_rules(transport, topic)] == ["one", "two"]
    await put_rules(transport, topic, read_rules(rule("two", 4, stage("b"))), 4)
    await remove_rule(transport, topic, "one", 5)
    assert await list_rules(transport, topic) == [Listed("two", read_rules(rule("two", 4, stage("b")))[0])]
    with pytest.raises(ConfigError, match="has no rule 'one'; it has two"):
        await remove_rule(transport, topic, "one", 6)
    await transport.stop()


def App_with_rules(port: int | None = None) -> App:  # noqa: N802  # reads like what it returns
    options = {"web_enabled": False} if port is None else {"web_port": port}
    app = App("cep-cli", broker="memory://cep-cli", partitions=2, commit_interval="20ms", **options)
    stores: dict[int, MemoryStore] = {}
    app.open_store = lambda number: stores.setdefault(number, MemoryStore())
    events = app.source("events", Event, key="user", time="ts")
    rules = app.rules("rules")

    @app.pipeline(events)
    def alerts(events: Stream[str, Event]) -> Sink:
        return events.detect(rules=rules, history=5).to("alerts")

    return app


def test_cep_rules_of_a_memory_broker_are_refused_with_the_way_out() -> None:
    result = CliRunner().invoke(main, ["cep", "rules", "list", "-A", str(PROGRAM)])
    assert result.exit_code == 1 and "memory:// lives inside one process" in result.output


def test_cep_explain_without_a_worker_says_so() -> None:
    port = free_port()
    asked = ["cep", "explain", "--pipeline", "alerts", "--key", "ann", "--worker"]
    result = CliRunner().invoke(main, [*asked, f"http://127.0.0.1:{port}"])
    assert result.exit_code == 1 and f"no worker answers at http://127.0.0.1:{port}" in result.output
    result = CliRunner().invoke(main, [*asked, "file:///etc"])
    assert result.exit_code == 1 and "an address such as" in result.output


async def test_cep_explain_shows_what_is_alive_and_what_became_of_the_rest() -> None:
    MemoryBrokers.drop("memory://cep-cli")
    port = free_port()
    app = App_with_rules(port)
    await app.start()
    try:
        pattern = [stage("a", "kind = 'a'"), stage("b", "kind = 'b'", after="next")]
        async with asyncio.timeout(20):
            while app.runner is None or len(app.runner.tasks) < 2:  # noqa: ASYNC110  # a real loop
                await asyncio.sleep(0.02)
            transport = app.make_transport("")
            await transport.start()
            await put_rules(transport, find_topic(app, None), read_rules(rule("pair", 1, *pattern, within="10s", output={})), 1)
            await transport.stop()
            while not has_rule(app):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        for kind, second in (("a", 1), ("b", 2), ("a", 3), ("x", 4), ("a", 5), ("y", 6)):
            await app.topic("events", value_type=Event).send(key="ann", value=Event("ann", kind, 7, second * 1_000))
        async with asyncio.timeout(20):
            while not (await asked(port))["state"].get("partial_matches"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        said = await invoked(port)
    finally:
        await app.stop()
        MemoryBrokers.drop("memory://cep-cli")
    assert "1 alive, 1 records wait for the watermark" in said
    assert "pair version 1 since 1970-01-01T00:00:05.000Z: a {" in said
    assert "waits for b until 1970-01-01T00:00:15.000Z" in said
    assert "pair version 1 matched at 1970-01-01T00:00:02.000Z" in said
    assert "pair version 1 failed at 1970-01-01T00:00:04.000Z" in said
    assert "the record at 4000 is not b, which had to come next" in said


def has_rule(app: App) -> bool:
    """Return whether every task has read the rules to their end."""
    assert app.runner is not None
    return all(task._opened is not None and any(task._opened.task.broadcast_positions().values()) for task in app.runner.tasks.values())


async def invoked(port: int, *more: str) -> str:
    command = ["cep", "explain", "--pipeline", "alerts", "--key", "ann", "--worker", f"http://127.0.0.1:{port}", *more]
    result = await asyncio.to_thread(CliRunner().invoke, main, command)
    return result.output


async def asked(port: int) -> dict[str, dict[str, list[object]]]:
    said = await invoked(port, "--json")
    try:
        answer: dict[str, dict[str, list[object]]] = json.loads(said)
    except ValueError:
        return {"state": {}}
    return answer
