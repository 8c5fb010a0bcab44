"""A pipeline whose JSON Schema or Protobuf evolves: old and new records mixed, its state kept, an incompatible version refused.

Producers write by schemas of their own, through the same subject; what comes out is read by the schema that its record names, with the
standard library or classes of protoc's. The registry is the embedded one, or Apicurio.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner

from cdc import Registry
from cdc.registry.server import RegistryServer
from engine import App, ConfigError
from engine.records import OutputColumns, TopicPartition
from engine.runtime.cli import main
from engine.runtime.loading import load_app
from engine.runtime.runner import Runner
from engine.runtime.shell import Limits
from engine.runtime.transport.memory import MemoryTransport
from engine.runtime.transport.memory_broker import MemoryBroker
from state.memory import MemoryStore
from tests.cdc.test_protobuf_codec import compiled
from tests.conftest import needs_java

pytestmark = pytest.mark.thorough

PATIENCE_S = 20.0
PROGRAM = """
from pathlib import Path
from engine import App, Struct, ValueState
from cdc import Registry
{codecs}

registry = Registry("{url}")

class Payment(Struct, frozen=True):
    user: str
    {payment}

class Total(Struct, frozen=True, forbid_unknown_fields=True):  # a closed schema of JSON: a field may be added
    user: str
    payments: int
    {total}

app = App("{name}", broker="memory://", partitions=2)
payments = app.source("{name}-payments", codec={source}, key="user")

class Sum:
    total = ValueState(Total, default=None)

    def on_record(self, record, ctx):
        payment, total = record.value, self.total.get() or Total(record.value.user, 0, cents=0)
        total = Total(total.user, total.payments + 1, {sum})
        self.total.set(total)
        yield total

@app.pipeline(payments)
def totals(payments):
    return payments.process(Sum, name="sum").to("{name}-totals", codec={sink})
"""
FIRST = {"payment": 'cents: int\n    note: str = ""', "total": "cents: int", "sum": "cents=total.cents + payment.cents"}
SECOND = {  # cents widened, note removed, client added; and the results and the state likewise
    "payment": 'cents: float\n    client: str = "?"',
    "total": 'cents: float\n    client: str = "?"',
    "sum": "cents=total.cents + payment.cents, client=payment.client",
}
BROKEN = {"payment": "cents: float\n    iban: str", "total": "cents: float\n    iban: str", "sum": "cents=0, iban=payment.iban"}
FIELDS = {
    "old": "string user = 1; int32 cents = 2; string note = 3;",
    "added": "string user = 1; int32 cents = 2; string note = 3; optional string client = 4;",
    "widened": "string user = 1; int64 cents = 2; string note = 3; optional string client = 4;",
    "removed": 'reserved 3; reserved "note"; string user = 1; int64 cents = 2; optional string client = 4;',
    "broken": "string user = 1; string cents = 2;",
}
TOTALS = {
    "first": "string user = 1; int32 payments = 2; int32 cents = 3;",
    "second": "string user = 1; int32 payments = 2; int64 cents = 3; optional string client = 4;",
    "broken": "string user = 1; int32 payments = 2; string cents = 3;",
}
PAYMENTS = {"first": "old", "second": "removed", "broken": "broken"}
_numbers = count()


class Json:
    """Records of JSON Schema."""

    kind = "JSON"
    first, second, broken = FIRST, SECOND, BROKEN
    reason = "iban"

    def __init__(self, folder: Path, *, widens: bool) -> None:
        user, cents, text = {"user": {"type": "string"}}, {"cents": {"type": "integer"}}, {"type": "string"}
        number = {"cents": {"type": "number"}}
        self.versions: dict[str, Any] = {
            "old": self._closed({**user, **cents, "note": text}),
            "added": self._closed({**user, **cents, "note": text, "client": text}),
            "widened": self._closed({**user, **number, "note": text, "client": text}),
            "removed": self._closed({**user, **number}),
        }
        del self.versions["removed"]["additionalProperties"]  # a property may be taken from an open schema only

    @staticmethod
    def _closed(properties: Any) -> Any:
        return {"type": "object", "properties": properties, "required": ["user", "cents"], "additionalProperties": False}

    def text(self, version: str) -> str:
        return json.dumps(self.versions[version])

    def write(self, version: str, value: dict[str, Any]) -> bytes:
        return json.dumps({name: value[name] for name in self.versions[version]["properties"]}).encode()

    def read(self, text: str, raw: bytes) -> Any:
        found = json.loads(raw)
        assert found.keys() <= json.loads(text)["$defs"]["Total"]["properties"].keys()
        return found

    def codecs(self, version: str) -> dict[str, str]:
        return {"codecs": "from cdc import jsonschema", "source": "jsonschema(registry, Payment)", "sink": "jsonschema(registry, Total)"}


class Protobuf:
    """Records of Protobuf."""

    kind = "PROTOBUF"
    first = FIRST
    second: ClassVar = {
        **SECOND,
        "payment": "cents: int\n    client: str | None = None",
        "total": "cents: int\n    client: str | None = None",
    }
    broken: ClassVar = {**BROKEN, "payment": "cents: str", "total": "cents: str", "sum": "cents=payment.cents"}
    reason = "cents"

    def __init__(self, folder: Path, *, widens: bool) -> None:
        self._folder, self._widens = folder, widens
        self._classes = {name: self._class(f"Payment {name}", self.text(name), "Payment") for name in FIELDS}

    def _class(self, place: str, text: str, name: str) -> Any:
        return compiled(self._folder / place.replace(" ", "_"), file=text)[name]

    def text(self, version: str) -> str:
        return self._as_it_may_be(f'syntax = "proto3"; message Payment {{ {FIELDS[version]} }}')

    def write(self, version: str, value: dict[str, Any]) -> bytes:
        kind = self._classes[version]
        names = {field.name for field in kind.DESCRIPTOR.fields}
        raw: bytes = kind(**{name: part for name, part in value.items() if name in names}).SerializeToString()
        return b"\0" + raw  # the first message of its file

    def read(self, text: str, raw: bytes) -> Any:
        message = self._class(f"read {next(_numbers)}", text, "Total").FromString(raw[1:])
        return {field.name: getattr(message, field.name) for field in message.DESCRIPTOR.fields if field.name != "client" or message.client}

    def codecs(self, version: str) -> dict[str, str]:
        made = []
        for name, text in (("Payment", self.text(PAYMENTS[version])), ("Total", self._total(version))):
            place = self._folder / f"{version}-{name}"
            made.append(f"{name}Message = compiled(Path({str(place)!r}), file={text!r})[{name!r}]")
        return {
            "codecs": "\n".join(["from cdc import protobuf", "from tests.cdc.test_protobuf_codec import compiled", *made]),
            "source": "protobuf(registry, PaymentMessage, Payment)",
            "sink": "protobuf(registry, TotalMessage, Total)",
        }

    def _total(self, version: str) -> str:
        return self._as_it_may_be(f'syntax = "proto3"; message Total {{ {TOTALS[version]} }}')

    def _as_it_may_be(self, text: str) -> str:
        return text if self._widens else text.replace("int64", "int32")


class World:
    """A broker in this process, a registry, producers, and the app in one version after another."""

    def __init__(self, form: Any, url: str, folder: Path) -> None:
        self.form, self.url, self._folder = form, url, folder
        self.name = f"evolve-{form.kind.lower()}-{next(_numbers)}"
        self.broker = MemoryBroker()
        self.registry = Registry(url)
        self.ids: dict[str, int] = {}
        self.sent: list[tuple[str, float]] = []

    def program(self, version: str) -> str:
        file = self._folder / f"{self.name}-{version}-{next(_numbers)}.py".replace("-", "_")
        source = PROGRAM.format(name=self.name, url=self.url, **self.form.codecs(version), **getattr(self.form, version))
        file.write_text(source)
        return str(file)

    async def register(self, *versions: str) -> None:
        for version in versions:
            found = await self.registry.register(f"{self.name}-payments-value", self.form.text(version), kind=self.form.kind)
            self.ids[version] = found

    def send(self, times: int, *versions: str, cents: float = 1) -> None:
        for number in range(times):
            for version in versions:
                user = f"user-{number % 3}"
                value = {"user": user, "cents": cents, "note": "n", "client": f"{user} A"}
                raw = b"\0" + self.ids[version].to_bytes(4, "big") + self.form.write(version, value)
                self.broker.produce({TopicPartition(f"{self.name}-payments", number % 3 % 2): OutputColumns([0], [user.encode()], [raw])})
                self.sent.append((user, cents))

    async def results(self) -> list[dict[str, Any]]:
        found = []
        for raw in self.committed("totals"):
            assert raw is not None
            number = int.from_bytes(raw[1:5], "big")
            await self.registry.fetch_ids([number])
            found.append(self.form.read(self.registry.schema(number).text, raw[5:]))
        return found

    def expected(self) -> list[tuple[str, int, float]]:
        totals: dict[str, tuple[int, float]] = {}
        expected = []
        for user, cents in self.sent:
            number, total = totals.get(user, (0, 0.0))
            totals[user] = number + 1, total + cents
            expected.append((user, *totals[user]))
        return sorted(expected)

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not is_so():  # noqa: ASYNC110  # a worker that runs has no event to wait for
                await asyncio.sleep(0.01)

    def written(self) -> int:
        return len(self.committed("totals"))

    def committed(self, end: str) -> list[bytes | None]:
        """Return the values of a topic."""
        topic = f"{self.name}-{end}"
        counts = self.broker.partition_counts([topic])
        return [raw for number in range(counts.get(topic, 0)) for raw in self.broker.read(TopicPartition(topic, number), 0).values]

    @asynccontextmanager
    async def worker(self, version: str) -> AsyncIterator[None]:
        """Run a worker of a version until the block ends; what it holds comes out of the changelog."""
        runner = Runner(
            load_app(self.program(version), App).topology.plan(),
            MemoryTransport(self.broker, group_id=self.name, client_id="worker"),
            open_store=lambda number: MemoryStore(),
            limits=Limits(commit_interval_ms=20, grace_s=1.0, retry_first_s=0.02, retry_max_s=0.1),
            create_sources=True,
        )
        running = asyncio.create_task(runner.run())
        try:
            await self.until(lambda: running.done() or bool(runner.tasks))
            if running.done():
                running.result()
            yield
        finally:
            runner.stop()
            with contextlib.suppress(ConfigError):
                await running

    async def schemas(self, command: str, version: str) -> tuple[int, str]:
        done = await asyncio.to_thread(CliRunner().invoke, main, ["schemas", command, self.program(version)])
        assert "Traceback" not in done.output
        return done.exit_code, done.output


@pytest.fixture(params=["embedded", pytest.param("apicurio", marks=[pytest.mark.cdc, pytest.mark.slow])])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a registry."""
    if request.param == "embedded":
        server = RegistryServer().start()
        yield server.url
        server.close()
    else:
        with needs_java():
            yield request.getfixturevalue("apicurio").url


@pytest.mark.parametrize("kind", [Json, Protobuf])
async def test_pipeline_evolves_with_old_and_new_records_mixed(kind: Any, url: str, tmp_path: Path) -> None:
    widens = "ccompat" not in url  # Apicurio takes an int64 in the place of an int32 for incompatible
    world = World(kind(tmp_path, widens=widens), url, tmp_path)
    for subject in ("payments", "totals"):  # Apicurio's default is NONE
        await world.registry.set_level("BACKWARD", f"{world.name}-{subject}-value")
    await world.register("old", "added")
    async with world.worker("first"):
        world.send(6, "old", "added", cents=3)
        await world.until(lambda: world.written() == 12)
    world.send(3, "old", "added", cents=5)  # nobody has read these yet

    await world.register("widened", "removed")
    status, said = await world.schemas("check", "second")
    assert status == 0 and f"{world.name}-totals-value (sink" in said, said
    big = 2.5 if kind is Json else 2**40 if widens else 2**20
    async with world.worker("second"):
        world.send(6, "widened", "old", "removed", "added", cents=7)
        world.send(3, "widened", "removed", cents=big)
        await world.until(lambda: world.written() == 48)
    found = await world.results()
    assert sorted((one["user"], one["payments"], float(one["cents"])) for one in found) == world.expected()
    assert {one.get("client", "?") for one in found} == {"?", "user-0 A", "user-1 A", "user-2 A"}
    assert await world.registry.versions(f"{world.name}-totals-value") == [1, 2]
    assert world.committed("dlq") == []

    await refused(world)
    async with world.worker("second"):
        world.send(2, "old", "removed", cents=1)
        await world.until(lambda: world.written() == 52)
    await world.registry.close()


async def refused(world: World) -> None:
    """An incompatible version is refused by the check, by the registry, and by the worker, which ends with the reason."""
    status, said = await world.schemas("check", "broken")
    assert status == 1 and "BREAKS" in said and world.form.reason in said, said
    status, said = await world.schemas("register", "broken")
    assert status == 1 and "incompatible" in said.lower(), said
    assert await world.registry.versions(f"{world.name}-totals-value") == [1, 2]
    with pytest.raises(ConfigError) as caught:
        async with world.worker("broken"):
            raise AssertionError("it must not run")
    assert world.form.reason in str(caught.value)
    assert f"{world.name}-payments" in str(caught.value)
