"""Canaries: what the seam relies on in Faust and mode. When one of these fails after an upgrade, the seam must be looked at.

Public names are listed too where only their behaviour makes the seam work.
"""

import asyncio
import importlib
import inspect
from importlib.metadata import version
from typing import Any

import faust
import pytest
from faust.app.base import BootStrategy
from faust.channels import Channel
from faust.cli.faust import cli
from faust.serializers.registry import Registry
from faust.tables.manager import TableManager
from faust.transport.conductor import Conductor
from faust.transport.consumer import Consumer
from faust.transport.producer import Producer
from faust.types import TP
from mode.utils.queues import FlowControlEvent, FlowControlQueue, ThrowableQueue

from engine import App
from engine.runtime.faust_seam.boot import Boot
from engine.runtime.faust_seam.deliveries import BatchChannel
from engine.runtime.faust_seam.side_consumer import SideConsumer
from engine.runtime.faust_seam.side_producer import SideProducer
from engine.runtime.faust_seam.side_transport import NoTables, SideTransport
from engine.testing.clock import virtual_time


def make_app(**options: Any) -> App:
    return App("seam", broker="memory://seam", web_enabled=False, **options)


def test_versions_are_those_the_seam_was_written_for() -> None:
    assert version("faust-streaming") == "0.15.3"
    assert version("mode-streaming").startswith("0.7.")


@pytest.mark.parametrize(
    ("base", "ours", "names"),
    [
        (BootStrategy, Boot, ["server", "kafka_consumer", "tables", "_chain", "_should_enable_kafka_consumer"]),
        (Channel, BatchChannel, ["queue", "put", "subscriber_count", "clone"]),
        (TableManager, NoTables, ["on_start", "wait_until_tables_registered", "on_rebalance", "wait_until_recovery_completed"]),
        (
            Consumer,
            SideConsumer,
            [
                "subscribe", "on_partitions_revoked", "on_partitions_assigned", "perform_seek", "seek", "commit", "wait_first",
                "pause_partitions", "resume_partitions", "resume_flow", "stop_flow", "_commit", "_seek", "_getmany", "_to_message",
                "_new_topicpartition", "_add_gap",
            ],
        ),
        (Producer, SideProducer, ["send", "send_and_wait", "flush", "create_topic", "supports_headers", "on_stop"]),
    ],
)  # fmt: skip
def test_overridden_names_exist_in_the_base(base: type, ours: type, names: list[str]) -> None:
    missing = [name for name in names if name not in dir(base) and name not in getattr(base, "__abstractmethods__", ())]
    overridden_by_abstract = {"subscribe"}  # declared by ConsumerT only
    assert set(missing) <= overridden_by_abstract
    assert issubclass(ours, base)


@pytest.mark.parametrize("ours", [SideConsumer, SideProducer, SideTransport, NoTables, Boot])
def test_nothing_abstract_is_left(ours: type) -> None:
    assert not getattr(ours, "__abstractmethods__", frozenset())


def test_signatures_of_overridden_methods_are_as_they_were() -> None:
    def parameters(function: Any) -> str:
        return " ".join(list(inspect.signature(function).parameters)[1:])

    assert parameters(TableManager.on_rebalance) == "assigned revoked newly_assigned generation_id"
    assert parameters(Consumer._getmany) == "active_partitions timeout"
    assert parameters(Consumer._add_gap) == "tp offset_from offset_to"
    assert parameters(Registry.loads_value) == "typ value serializer"
    assert parameters(Registry.dumps_value) == "typ value serializer skip"


def test_settings_that_we_set_are_known() -> None:
    wanted = "broker datadir env_prefix web_bind web_enabled TableManager Serializers topic_partitions topic_disable_leader"
    assert set(wanted.split()) <= faust.App.Settings.setting_names()


def test_conductor_waits_for_the_table_manager_before_it_subscribes() -> None:
    source = inspect.getsource(Conductor._subscriber.fun)
    assert source.index("tables.wait_until_tables_registered()") < source.index("consumer.subscribe(")


def test_consumer_state_that_acks_and_seeks_go_through_is_there() -> None:
    consumer = make_app().consumer
    assert isinstance(consumer, SideConsumer)
    assert consumer._read_offset[TP("no such", 0)] is None
    assert consumer.flow_active in (True, False)
    assert isinstance(consumer.app.consumer_generation_id, int)


def test_transport_of_the_app_is_ours_by_its_public_setters() -> None:
    app = make_app()
    assert isinstance(app.transport, SideTransport)
    assert app.transport is app.producer_transport
    assert isinstance(app.producer, SideProducer)
    assert isinstance(app.tables, NoTables)


def test_commands_of_ours_take_the_place_of_fausts() -> None:
    make_app()
    for name in ("reset", "tables"):
        callback = cli.commands[name].callback
        assert callback is not None
        assert inspect.unwrap(callback).__module__ == "engine.runtime.faust_seam.commands"


def test_default_of_datadir_is_a_template() -> None:
    template: str = importlib.import_module("faust.cli.base").DATADIR
    assert template.startswith("{conf.")


def test_queue_of_a_channel_is_under_flow_control_unless_ours() -> None:
    assert issubclass(ThrowableQueue, FlowControlQueue)
    app = make_app()
    suspended = FlowControlEvent(initially_suspended=True)
    assert not suspended.is_active()
    queue = BatchChannel(app).queue
    queue.put_nowait(1)
    app.flow_control.suspend()
    app.flow_control.clear()
    assert queue.qsize() == 1


@virtual_time
async def test_stream_of_a_channel_yields_values_that_are_no_events_as_they_are() -> None:
    app = make_app()
    channel, taken = BatchChannel(app), []

    @app.agent(channel)
    async def take(stream: Any) -> None:
        async for value in stream:
            taken.append(value)  # noqa: PERF401  # an agent, not a comprehension

    await app.agents.start()
    thing: Any = object()
    assert channel.subscriber_count == 1
    await channel.put(thing)
    await asyncio.sleep(1)
    assert taken == [thing]
    await app.agents.stop()
