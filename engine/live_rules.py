"""What `Stream.detect(rules=…)` adds to the graph: an operator with two inputs, the records and the rules topic."""

from typing import TYPE_CHECKING, Any

from engine.cep.rules.compiled import Frame
from engine.cep.rules.rule import RuleMatch
from engine.codecs import JsonCodec
from engine.detecting import DetectOptions, keys_of, times_of
from engine.errors import ConfigError
from engine.graph import Node, SideSpec
from engine.operators.detect_rules import detect_rules_operator

if TYPE_CHECKING:
    from engine.sources import RulesSource
    from engine.stream import Stream


def detect_rules(
    stream: "Stream[Any, Any]", rules: "RulesSource", options: DetectOptions, timeouts_to: str | None
) -> "Stream[Any, RuleMatch]":
    """Return the stream of what the rules find.

    Raises:
        ConfigError: The rules are none, or an option does not suit them.
    """
    from engine.sources import RulesSource

    what = stream._what(options.name)
    if not isinstance(rules, RulesSource):
        raise ConfigError(f"{what}: rules={rules!r} is no topic of rules; make one with app.rules('topic')")
    if options.on_too_many not in ("drop_oldest", "fail"):
        raise ConfigError(f"{what}: on_too_many={options.on_too_many!r} is not for rules; use 'drop_oldest' or 'fail'")
    if timeouts_to is not None and timeouts_to == options.late_to:
        raise ConfigError(f"{what}: timeouts_to and late_to are the same topic {timeouts_to!r}; give each its own")
    frame = Frame(
        stream._value_type,
        frozenset(keys_of(stream._node)),
        frozenset(times_of(stream._node)),
        options.max_partials,
        options.max_records,
        options.on_too_many,
        timeouts_to is not None,
    )
    rules.frames[f"{stream._graph.name}/{options.name}"] = frame
    keyed = stream._keyed(options.name)
    rules_node = rules.node_in(keyed._graph, keyed._shared)
    node = keyed._graph.add(
        Node(
            "detect",
            options.name,
            ((keyed._node, keyed._output), (rules_node, 0)),
            detect_rules_operator(
                frame, key_type=keyed._key_type, late_to=options.late_to, timeouts_to=timeouts_to, history=options.history
            ),
            key_type=keyed._key_type,
            value_type=RuleMatch,
            signature=f"detect {options.name} rules {rules.spec.topic}",
            sides=tuple(SideSpec(topic, JsonCodec(Any)) for topic in (timeouts_to, options.late_to) if topic is not None),
        )
    )
    return keyed._with(node, value_type=RuleMatch)
