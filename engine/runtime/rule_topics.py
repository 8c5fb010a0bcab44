"""Rules on their topic, from outside: what stands there, putting some, removing one. What is known to be wrong is not sent."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from engine.cep.rules.compiled import Frame, compile_rule
from engine.cep.rules.rule import Rule, check_rule, parse_rule
from engine.errors import ConfigError, RecordError
from engine.records import OutputColumns, TopicPartition
from engine.runtime.app import App
from engine.runtime.transport.protocol import Transport
from engine.sources import RulesSource
from engine.topics import TopicSpec
from state.hashing import partition_of

_WAIT_S = 1.0


@dataclass(frozen=True, slots=True)
class RuleTopic:
    """A topic of rules, and what its rules must fit as far as the app is known ("pipeline/operator" -> frame)."""

    spec: TopicSpec
    frames: dict[str, Frame]


@dataclass(frozen=True, slots=True)
class Listed:
    """What the topic says last of a rule; `rule` is None where it is none, `problem` says why."""

    id: str
    rule: Rule | None
    problem: str = ""


def find_topic(app: App | None, topic: str | None) -> RuleTopic:
    """Return the topic that is meant.

    Raises:
        ConfigError: The app has no rules, or several topics of them and none is named; without an app none is named.
    """
    if app is None:
        if topic is None:
            raise ConfigError("which topic? Give --topic NAME, or --app PIPELINES for the rules of an app")
        return RuleTopic(TopicSpec(topic, 1, compacted=True, create=False), {})
    known = {name: source for name, source in app.topology.sources.items() if isinstance(source, RulesSource)}
    names = ", ".join(sorted(known)) or "none"
    if topic is None and len(known) == 1:
        (topic,) = known
    if topic not in known:
        raise ConfigError(f"app {app.topology.app_id!r}: which topic of rules? Give --topic NAME; there are: {names}")
    spec = next((spec for spec in app.topology.plan().topic_specs() if spec.name == topic), None)
    if spec is None:
        raise ConfigError(f"app {app.topology.app_id!r}: no pipeline detects the rules of {topic!r}")
    return RuleTopic(spec, known[topic].frames)


def read_rules(raw: bytes) -> list[Rule]:
    """Return the rules of a file: one object, a list of them, or one a line. Each is a rule, or a record line of `streamforge run`.

    Raises:
        RecordError: One is no rule, with the reason and, of several, its line or its number.
    """
    text = raw.strip()
    pieces: list[tuple[str, bytes]] = [("", text)]
    if text.startswith(b"["):
        try:
            several = msgspec.json.decode(text, type=list[msgspec.Raw])
            pieces = [(f"rule {number} of the list: ", bytes(piece)) for number, piece in enumerate(several, 1)]
        except msgspec.DecodeError as error:
            raise RecordError(f"not a list of rules: {error}") from error
    elif not _is_json(text) and _is_json(text.split(b"\n", 1)[0]):
        pieces = [(f"line {number}: ", line) for number, line in enumerate(raw.splitlines(), 1) if line.strip()]
    if not text or not pieces:
        raise RecordError("there is no rule in it")
    rules: list[Rule] = []
    for place, piece in pieces:
        try:
            rules.append(_rule_of(piece))
        except RecordError as error:
            raise RecordError(f"{place}{error}") from error
    return rules


def _rule_of(piece: bytes) -> Rule:
    """Return the rule, which may be the value of a record line: {"key": id, "value": rule}."""
    try:
        line = msgspec.json.decode(piece, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return parse_rule(piece)  # which says what is wrong
    if "value" not in line or "id" in line:
        return parse_rule(piece)
    if bytes(line["value"]) == b"null":
        raise RecordError("a record without a value removes a rule; do that by `streamforge cep rules remove ID`")
    rule = parse_rule(bytes(line["value"]))
    key = msgspec.json.decode(line["key"]) if "key" in line else rule.id
    if key != rule.id:
        raise RecordError(f"the record's key is {key!r} and its rule's id {rule.id!r}: they must be the same")
    return rule


def _is_json(text: bytes) -> bool:
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True


def check_fits(rules: Sequence[Rule], topic: RuleTopic) -> None:
    """Refuse what no worker would take.

    Raises:
        RecordError: A rule cannot run, with the reason.
    """
    for rule in rules:
        check_rule(rule)
        for frame in topic.frames.values():
            compile_rule(rule, frame)


async def list_rules(transport: Transport, topic: RuleTopic) -> list[Listed]:
    """Return what the topic says last of each rule, by id; removed ones are left out."""
    found: dict[str, Listed] = {}
    partitions = await _partitions(transport, topic)
    begins, ends = await transport.begin_offsets(partitions), await transport.end_offsets(partitions)
    for partition in partitions:
        reader = await transport.open_reader(partition, begins[partition])
        try:
            while reader.position < ends[partition]:
                batch = await reader.read(_WAIT_S)
                if batch is None:
                    continue
                for key, value in zip(batch.keys, batch.values, strict=True):
                    _note(found, key, value)
        finally:
            await reader.close()
    return [found[name] for name in sorted(found)]


async def put_rules(transport: Transport, topic: RuleTopic, rules: Sequence[Rule], now_ms: int) -> None:
    """Send rules, each with its id as key.

    Raises:
        ConfigError: The topic is missing.
        RecordError: The topic holds a version of a rule that is not lower.
    """
    if topic.spec.create:
        await transport.ensure_topics([topic.spec])
    standing = {listed.id: listed.rule for listed in await list_rules(transport, topic)}
    for rule in rules:
        old = standing.get(rule.id)
        if old is not None and old != rule and rule.version <= old.version:
            raise RecordError(f"rule {rule.id!r}: the topic has version {old.version}; a change of it needs a higher one")
        standing[rule.id] = rule
    await _send(transport, topic, [(rule.id.encode(), msgspec.json.encode(rule)) for rule in rules], now_ms)


async def remove_rule(transport: Transport, topic: RuleTopic, name: str, now_ms: int) -> None:
    """Send a record without a value.

    Raises:
        ConfigError: The topic has no such rule.
    """
    listed = await list_rules(transport, topic)
    if name not in [one.id for one in listed]:
        raise ConfigError(f"{topic.spec.name!r} has no rule {name!r}; it has {', '.join(one.id for one in listed) or 'none'}")
    await _send(transport, topic, [(name.encode(), None)], now_ms)


async def _send(transport: Transport, topic: RuleTopic, records: Sequence[tuple[bytes, bytes | None]], now_ms: int) -> None:
    count = len(await _partitions(transport, topic))
    columns: dict[TopicPartition, OutputColumns] = {}
    for key, value in records:
        partition = TopicPartition(topic.spec.name, partition_of(key, count))
        columns.setdefault(partition, OutputColumns()).append(now_ms, key, value)
    await transport.send(columns)


async def _partitions(transport: Transport, topic: RuleTopic) -> list[TopicPartition]:
    name = topic.spec.name
    counts = await transport.partition_counts([name])
    if name not in counts:
        raise ConfigError(f"topic {name!r} does not exist; a worker makes it, or: streamforge topics create --app PIPELINES {name}")
    return [TopicPartition(name, number) for number in range(counts[name])]


def _note(found: dict[str, Listed], key: bytes | None, value: bytes | None) -> None:
    name = "" if key is None else key.decode(errors="replace")
    if value is None:
        found.pop(name, None)
        return
    try:
        found[name] = Listed(name, parse_rule(value))
    except RecordError as error:
        found[name] = Listed(name, None, str(error))
