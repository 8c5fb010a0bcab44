"""The graph of an app, for people and tools: as an indented text, as a Mermaid flowchart, as plain data for JSON.

    revenue: Revenue of each currency, minute by minute.
      orders
      └─ key_by
         └─ window-repartition, through shop-revenue-window-repartition-1
            └─ window, also to orders-late
               └─ revenue

A reader stands below what it reads.
"""

from collections.abc import Iterator
from typing import Any

from engine.graph import Node, PipelineGraph
from engine.plan import Plan


def draw_text(plan: Plan) -> str:
    """Return all pipelines as trees, readers below what they read; what has several inputs stands below each."""
    count = len(plan.graphs)
    blocks = [f"app {plan.app_id}: {count} pipeline{'s' * (count != 1)}, {plan.partitions} partitions"]
    for graph in plan.graphs.values():
        title = f"{graph.name}: {_first_line(graph.description)}" if graph.description else graph.name
        lines = [title]
        for node in graph.nodes:
            if not node.inputs:
                lines.append(f"  {_title(plan, node)}")
                lines.extend(_tree(plan, graph, node, "  "))
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def draw_mermaid(plan: Plan) -> str:
    """Return a Mermaid flowchart: topics as cylinders, shared by the pipelines; operators as boxes, grouped by pipeline."""
    topics: dict[str, str] = {}
    edges: list[str] = []
    lines = ["flowchart LR"]

    def topic_id(topic: str) -> str:
        return topics.setdefault(topic, f"t{len(topics)}")

    for number, graph in enumerate(plan.graphs.values()):
        boxes = [node for node in graph.nodes if _topic(plan, node) is None]
        ids = {node: f"p{number}n{index}" for index, node in enumerate(boxes)}
        ids |= {node: topic_id(topic) for node in graph.nodes if (topic := _topic(plan, node)) is not None}
        lines.append(f"    subgraph p{number}[{_quoted(graph.name)}]")
        lines.extend(f"        {ids[node]}[{_quoted(node.name)}]" for node in boxes)
        lines.append("    end")
        for node in graph.nodes:
            edges.extend(f"    {ids[upstream]} --> {ids[node]}" for upstream, _ in node.inputs)
            edges.extend(f"    {ids[table]} -.-> {ids[node]}" for table in node.reads)
            edges.extend(f"    {ids[node]} -.-> {topic_id(side.topic)}" for side in node.sides)
    lines.extend(f"    {name}[({_quoted(topic)})]" for topic, name in topics.items())
    return "\n".join([*lines, *edges]) + "\n"


def describe_plan(plan: Plan) -> dict[str, Any]:
    """Return topics and pipelines as plain data; operators stand behind what they read."""
    return {
        "app": plan.app_id,
        "partitions": plan.partitions,
        "topics": [
            {"name": spec.name, "role": topic_role(plan, spec.name), "partitions": spec.partitions, "compacted": spec.compacted}
            for spec in plan.topic_specs()
        ],
        "pipelines": [
            {"name": graph.name, "description": graph.description, "operators": [_describe(plan, node) for node in graph.nodes]}
            for graph in plan.graphs.values()
        ],
    }


def topic_role(plan: Plan, topic: str) -> str:
    """Return what a topic is to an app, such as source, output, repartition, changelog or dead letters."""
    if topic in plan.sources:
        return "source"
    if topic in plan.broadcasts:
        return "broadcast"
    if topic in plan.internal_topics:
        return "repartition"
    roles = {
        plan.changelog_topic: "changelog",
        plan.alignment_topic: "alignment",
        plan.control_topic: "control",
        plan.audit_topic: "audit",
        plan.epochs_topic: "epochs",
        plan.dead_letter_topic: "dead letters",
    }
    return roles.get(topic, "output")


def _tree(plan: Plan, graph: PipelineGraph, node: Node, indent: str) -> Iterator[str]:
    readers = list(dict.fromkeys(reader for reader, _, _ in graph.readers(node)))
    for reader in readers:
        last = reader is readers[-1]
        yield f"{indent}{'└─' if last else '├─'} {_title(plan, reader)}"
        yield from _tree(plan, graph, reader, indent + ("   " if last else "│  "))


def _title(plan: Plan, node: Node) -> str:
    if node.kind == "repartition":
        return f"{node.name}, through {plan.repartitions[node]}"
    if node.reads:
        return f"{node.name}, in {', '.join(table.name for table in node.reads)}"
    if node.sides:
        return f"{node.name}, also to {', '.join(side.topic for side in node.sides)}"
    return _topic(plan, node) or node.name


def _topic(plan: Plan, node: Node) -> str | None:
    if node.source is not None:
        return node.source.topic
    if node.sink is not None:
        return node.sink.topic
    return plan.repartitions.get(node)


def _describe(plan: Plan, node: Node) -> dict[str, Any]:
    return {
        "name": node.name,
        "kind": node.kind,
        "inputs": [upstream.name for upstream, _ in node.inputs],
        "topic": _topic(plan, node),
        "looks_into": [table.name for table in node.reads],
        "side_topics": [side.topic for side in node.sides],
        "keeps_state": bool(node.signature),
    }


def _first_line(description: str) -> str:
    return description.split("\n", 1)[0]


def _quoted(label: str) -> str:
    return '"' + label.replace('"', "#quot;") + '"'
