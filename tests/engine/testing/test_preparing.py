"""A TestDriver whose codecs ask a registry: it is asked at once, and one that does not answer is an error, not a wait."""

import pytest

from cdc import Registry, avro
from engine import App, ConfigError, Sink, Stream, Struct
from engine.errors import UnavailableError
from engine.testing import TestDriver


class Payment(Struct, frozen=True):
    id: str
    cents: int


def app_by(registry: Registry) -> App:
    app = App("prepared", broker="memory://")
    payments = app.source("payments", codec=avro(registry, Payment), key="id")

    @app.pipeline(payments)
    def copies(payments: Stream[str, Payment]) -> Sink:
        return payments.to("copies", codec=avro(registry, Payment))

    return app


def test_driver_writes_and_reads_by_a_registry_in_the_process() -> None:
    with TestDriver(app_by(Registry("memory://test-preparing"))) as driver:
        driver.send("payments", Payment("a", 1))
        (copy,) = driver.read("copies")
        driver.send("payments", copy.value)
        driver.restart()
        assert [record.value for record in driver.read("copies")] == [copy.value]
        assert copy.value[:5] == b"\0\0\0\0\1" and driver.dead_letters() == []


def test_registries_of_one_address_are_one_and_of_another_are_not() -> None:
    assert Registry("memory://test-a").urls != Registry("memory://test-b").urls


def test_driver_without_a_registry_says_so() -> None:
    with pytest.raises(UnavailableError, match="does not answer"):
        TestDriver(app_by(Registry("http://127.0.0.1:9", attempts=1)))


async def test_driver_that_needs_a_registry_inside_a_loop_says_so() -> None:
    with pytest.raises(ConfigError, match="make the test a plain function"):
        TestDriver(app_by(Registry("memory://test-preparing")))
