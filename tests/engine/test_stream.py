"""Declarations: what is refused, and what the plan says."""

from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import pytest

from engine import agg, triggers, windows
from engine.errors import ConfigError
from engine.topology import Topology
from engine.watermarks import bounded
from tests.engine.shop_records import Order, shop


@pytest.mark.parametrize(
    ("declare", "words"),
    [
        (lambda s: s, "returned a Stream"),
        (lambda s: None, "returned None"),
        (lambda s: [s.to("a"), 7], "returned 7"),
        (lambda s: s.to(""), "topic name"),
        (lambda s: s.filter("x").to("a"), "not callable"),
        (lambda s: s.key_by("nothing").to("a"), "no field 'nothing'"),
        (lambda s: s.key_by(7).to("a"), "not a selector"),
        (lambda s: s.to("a", key="nothing"), "no field 'nothing'"),
        (lambda s: s.branch()["x"].to("a"), "at least one predicate"),
        (lambda s: s.branch("x", x=bool)["x"].to("a"), "name of the rest and of a predicate"),
        (lambda s: [s.to("a"), s.to("a", compacted=True)], "compacted in one place"),
    ],
)
def test_pipeline_bad_declaration_is_refused_by_name(declare: Callable[[Any], Any], words: str) -> None:
    topology, orders = shop()

    def start() -> None:
        topology.pipeline(orders, name="work")(declare)
        topology.plan()

    with pytest.raises(ConfigError, match=words) as error:
        start()
    assert "work" in str(error.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "exactly one of value_type"),
        ({"value_type": Order, "key": "nope"}, "no field 'nope'"),
        ({"value_type": Order, "time": "order_id"}, "event time is an int"),
        ({"value_type": Order, "watermark": "30s"}, "not a watermark strategy"),
        ({"value_type": Order, "key_type": float}, "cannot be a key"),
        ({"value_type": object()}, "cannot be decoded"),
    ],
)
def test_source_bad_declaration_is_refused_by_name(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        Topology("shop").source("orders", **options)
    assert "orders" in str(error.value)


def test_source_declared_twice_is_refused() -> None:
    topology, _ = shop()
    with pytest.raises(ConfigError, match="declared twice"):
        topology.source("orders", Order)


def test_source_used_outside_a_pipeline_says_how() -> None:
    _, orders = shop()
    with pytest.raises(ConfigError, match="belongs inside a pipeline"):
        orders.filter(bool)


def test_pipeline_without_or_with_a_foreign_source_is_refused() -> None:
    topology, _ = shop()
    _, foreign = shop()
    with pytest.raises(ConfigError, match="reads nothing"):
        topology.pipeline()(lambda: None)
    with pytest.raises(ConfigError, match="not a source of this app"):
        topology.pipeline(foreign)(lambda s: s.to("a"))


def test_two_pipelines_of_one_name_are_refused() -> None:
    topology, orders = shop()
    topology.pipeline(orders, name="work")(lambda s: s.to("a"))
    with pytest.raises(ConfigError, match="two pipelines are called 'work'"):
        topology.pipeline(orders, name="work")(lambda s: s.to("b"))


def test_pipeline_stays_callable_and_cannot_be_asked() -> None:
    topology, orders = shop()

    @topology.pipeline(orders)
    def work(stream: Any) -> Any:
        """Say something."""
        return stream.to("a") if hasattr(stream, "to") else stream * 2

    assert work(21) == 42
    assert work.__doc__ == "Say something."
    with pytest.raises(ConfigError, match="cannot be asked"):
        work.ask(1)


def test_app_without_pipelines_has_no_plan() -> None:
    with pytest.raises(ConfigError, match="no pipeline"):
        Topology("shop").plan()


def test_plan_repartitions_only_where_a_key_matters() -> None:
    topology, orders = shop()
    topology.pipeline(orders, name="plain")(lambda s: s.key_by("currency").to("a"))
    assert topology.plan().internal_topics == ()

    def twice(stream: Any) -> Any:
        moved = stream.key_by("currency").filter(bool)
        return [moved.process(lambda r, c: None, name="one").to("b"), moved.process(lambda r, c: None, name="two").to("c")]

    topology.pipeline(orders, name="keyed")(twice)
    plan = topology.plan()
    assert plan.internal_topics == ("shop-keyed-one-repartition-1",)
    assert plan.pipelines == {"plain": ("orders",), "keyed": ("orders", "shop-keyed-one-repartition-1")}


def test_plan_topics_have_the_settings_that_recovery_rests_on() -> None:
    topology, orders = shop(partitions=3)
    topology.pipeline(orders, name="work")(lambda s: s.key_by("currency").process(lambda r, c: None, name="p").to("a", compacted=True))
    specs = {spec.name: spec for spec in topology.plan().topic_specs()}
    single = {"shop-audit", "shop-epochs"}  # these belong to the app, not to its tasks
    assert {name: spec.partitions for name, spec in specs.items()} == {name: 1 if name in single else 3 for name in specs}
    assert specs["shop-changelog-1"].compacted and specs["a"].compacted
    assert specs["shop-work-p-repartition-1"].retention_ms == -1
    assert not specs["orders"].create
    assert "shop-dlq" in specs


def test_key_type_of_a_source_follows_its_key_field() -> None:
    topology = Topology("shop")
    by_time = topology.source("orders", Order, key="ts", watermark=bounded("0s"))
    assert by_time.spec.key_type is int


def test_key_field_with_notes_is_what_its_type_says() -> None:
    class Noted(msgspec.Struct, frozen=True):
        user: Annotated[str, msgspec.Meta(min_length=1)]

    app = Topology("noted", partitions=1)
    assert app.source("notes", Noted, key="user").spec.key is not None

    class Wrong(msgspec.Struct, frozen=True):
        user: Annotated[float, msgspec.Meta(ge=0)]

    with pytest.raises(ConfigError, match="float cannot be a key"):
        app.source("wrong", Wrong, key="user")


@pytest.mark.parametrize(
    ("declare", "value"),
    [
        (lambda s: s.window(windows.tumbling("0s")), "'0s'"),
        (lambda s: s.window(windows.hopping("1m", every="2m")), "'2m'"),
        (lambda s: s.window(windows.session(30)), "30"),  # type: ignore[arg-type]  # what is tested
        (lambda s: s.window(windows.count(0)), "n=0"),
        (lambda s: s.window(windows.tumbling("1m"), trigger=triggers.every(records=0)), "records=0"),
        (lambda s: s.window(windows.tumbling("1m"), trigger="early"), "'early'"),
        (lambda s: s.window(windows.tumbling("1m"), late_to="").aggregate(n=agg.count()), "''"),
        (lambda s: s.join(s, within=("0s", "1s"), late_to=5), "5"),
        (lambda s: s.aggregate(n=agg.top("amount", 0)), "n=0"),
    ],
)
def test_impossible_declaration_names_the_pipeline_and_the_value(declare: Any, value: str) -> None:
    topology = Topology("shop")
    source = topology.source("readings", dict, key_type=str)
    with pytest.raises(ConfigError) as error:
        topology.pipeline(source, name="work")(lambda stream: declare(stream).to("out"))
    assert str(error.value).startswith("pipeline 'work'")
    assert value in str(error.value)
