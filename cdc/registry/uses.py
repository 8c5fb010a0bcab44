"""Which schemas an app reads and writes, and what stands in the way of each in a registry."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cdc.avro_values import check_schema
from cdc.registry.client import NotFoundError, Registry, SubjectVersion
from cdc.registry.differences import differences
from cdc.registry.json_rules import json_breaks
from cdc.registry.rules import LEVELS, breaks_of, check, names_of, reader_breaks
from cdc.schema_codecs import SchemaCodec
from engine.errors import RecordError
from engine.graph import SideSpec, SinkSpec
from engine.plan import Plan


@dataclass(frozen=True, slots=True)
class Use:
    """A topic whose records carry schema ids. `writes`: a sink, whose schema is registered; a source only reads."""

    topic: str
    codec: SchemaCodec[Any]
    writes: bool

    @property
    def subject(self) -> str:
        """Where its schema stands."""
        return self.codec.subject_of(self.topic)


@dataclass(slots=True)
class Verdict:
    """What a registry holds of a use.

    Attributes:
        versions: Of the subject; [] if there is none yet.
        known_as: The version that is the same schema, None for another one.
        changes: Against the latest version, in words.
        breaks: What forbids it. Nothing does if this is empty.
        warnings: Old versions that a source cannot read.
    """

    use: Use
    level: str
    versions: list[int] = field(default_factory=list)
    known_as: int | None = None
    changes: list[str] = field(default_factory=list)
    breaks: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    levels: dict[str, bool] = field(default_factory=dict)


def uses_of(plan: Plan) -> list[Use]:
    """Return the uses of all topics of an app, sources first; dict sources, which take what was written, are left out."""
    found = [Use(topic, spec.codec, writes=False) for topic, spec in plan.fed_topics.items() if isinstance(spec.codec, SchemaCodec)]
    for graph in plan.graphs.values():
        for node in graph.nodes:
            sinks: list[SinkSpec | SideSpec] = [*node.sides] if node.sink is None else [node.sink, *node.sides]
            found += [Use(sink.topic, sink.codec, writes=True) for sink in sinks if isinstance(sink.codec, SchemaCodec)]
    unique = {(use.topic, use.writes, id(use.codec)): use for use in found if use.codec.schema}
    return list(unique.values())


async def judge(use: Use, registry: Registry) -> Verdict:
    """Ask a registry about a use.

    Raises:
        UnavailableError: It does not answer.
    """
    verdict = Verdict(use, await registry.level(use.subject))
    if use.writes:
        await _judge_parts(verdict, registry)
    try:
        verdict.versions = await registry.versions(use.subject)
    except NotFoundError:
        return verdict
    found = [await registry.version(use.subject, number) for number in verdict.versions]
    new, same = use.codec.whole, use.codec.kind
    other = [one.version for one in found if one.schema.kind != same]
    if other:
        verdict.breaks.append(f"version {other[-1]} is {found[-1].schema.kind}, and this is {same}")
        return verdict
    referred = False
    try:
        await use.codec.refer(registry, register=False)
        referred = True
        verdict.known_as = await _known_as(use, registry)
    except RecordError:
        verdict.known_as = None
    if same != "AVRO":
        await _judge_other(verdict, found, registry)
        return verdict
    parsed = check_schema(new)
    written = [(one.version, check_schema(one.schema.text, one.schema.resolved)) for one in found]
    named = names_of([text for one in found for text in one.schema.resolved])
    verdict.changes = differences(written[-1][1], parsed)
    if not use.writes:
        _judge_reader(verdict, parsed, written, named)
        return verdict
    verdict.levels = {level: not check(level, parsed, written, named) for level in LEVELS}
    if verdict.known_as is None:
        verdict.breaks += check(verdict.level, parsed, written, named)
        if referred and not verdict.breaks:
            compatible, reasons = await registry.check(use.subject, use.codec.schema, references=use.codec.references)
            verdict.breaks = [] if compatible else reasons or ["the registry says that it is incompatible, and not why"]
    return verdict


async def _judge_parts(verdict: Verdict, registry: Registry) -> None:
    """Judge what a sink's schema refers to: each part by the level of its own subject."""
    for part in verdict.use.codec.parts:
        try:
            numbers = await registry.versions(part.subject)
        except NotFoundError:
            continue
        found = [await registry.version(part.subject, number) for number in numbers]
        written = [(one.version, check_schema(one.schema.text, one.schema.resolved)) for one in found]
        named = names_of([text for one in found for text in one.schema.resolved])
        reasons = check(await registry.level(part.subject), check_schema(part.whole), written, named)
        verdict.breaks += [f"{part.name}, to which it refers ({part.subject}): {reason}" for reason in reasons]


async def _judge_other(verdict: Verdict, found: Sequence[SubjectVersion], registry: Registry) -> None:
    """Judge a JSON Schema or a Protobuf file."""
    use, kind = verdict.use, verdict.use.codec.kind
    new = use.codec.schema if kind == "PROTOBUF" else json.loads(use.codec.schema)
    written = [(one.version, one.schema.text if kind == "PROTOBUF" else json.loads(one.schema.text)) for one in found]
    if not use.writes:
        for number, writer in written:
            reasons = (
                breaks_of(kind, reader=new, writer=writer)
                if kind == "PROTOBUF"
                else json_breaks(reader=new, writer=writer, assume_closed=True)
            )
            for reason in reasons:
                # What a reference names is not here, so what cannot be decided may well be right.
                serious = number == written[-1][0] and "cannot be decided" not in reason
                (verdict.breaks if serious else verdict.warnings).append(f"records of version {number} cannot be read: {reason}")
        return
    if verdict.known_as is not None:
        return
    own = check(verdict.level, new, written, kind=kind)
    compatible, reasons = await registry.check(use.subject, use.codec.schema, kind=kind, references=use.codec.references)
    if compatible:
        verdict.warnings += [f"{reason} (the registry lets it pass)" for reason in own]
    else:
        verdict.breaks += reasons or own or ["the registry says that it is incompatible, and not why"]


async def _known_as(use: Use, registry: Registry) -> int | None:
    return (await registry.find(use.subject, use.codec.schema, kind=use.codec.kind, references=use.codec.references)).version


def _judge_reader(verdict: Verdict, reader: Any, written: Sequence[tuple[int, Any]], named: dict[str, Any]) -> None:
    """A source must read what is written now; what was written long ago may be gone from the topic."""
    latest = written[-1][0]
    for number, writer in written:
        reasons = [f"records of version {number} cannot be read: {reason}" for reason in reader_breaks(reader, writer, named)]
        (verdict.breaks if number == latest else verdict.warnings).extend(reasons)
