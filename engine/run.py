"""One pipeline of one task at run time: its operators wired up, and what happens when user code raises.

A batch is fed to all operators at once. If anything raises, everything that this pipeline did with the batch is undone (state,
timers, outputs, counters), and the batch is fed again one record at a time with each firing guarded on its own, so that exactly
the record or the firing that raises goes to the dead letters. That costs time only for batches that hold bad records.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from engine.block import Block, advance, one_by_one
from engine.broadcasts import BroadcastInput
from engine.dead_letters import firing_headers
from engine.errors import FencedError, StateError, StoredTypeError, UnavailableError
from engine.graph import Node, PipelineGraph
from engine.inputs import Input, RepartitionInput, SourceInput
from engine.keys import key_codec
from engine.operators.base import Emit, Operator
from engine.operators.repartition import RepartitionSink
from engine.operators.sink import TopicSink, encode_side
from engine.operators.stateless import Branch
from engine.operators.traced import Traced
from engine.records import Headers, RecordBatch
from state.overlay import TaskState

if TYPE_CHECKING:
    from engine.task import Task

NOT_THE_RECORDS_FAULT = (StateError, StoredTypeError, FencedError, UnavailableError, MemoryError)


class NodeContext:
    """The `OperatorContext` of one node."""

    def __init__(self, run: "PipelineRun", node: Node) -> None:
        self.pipeline = run.name
        self.name = node.name
        self.node = node
        self.run = run
        self.partition = run.task.number
        self.state: TaskState = run.task.state
        self.key_bytes: Callable[[Any], bytes] = key_codec(node.key_type).wire
        self._sides = {side.topic: side.codec for side in node.sides}
        self.traced: Headers = ()

    @property
    def now_ms(self) -> int:
        return self.run.task.now_ms

    @property
    def careful(self) -> bool:
        return self.run.careful

    def state_name(self, local: str) -> str:
        return f"{self.pipeline}/{self.name}/{local}"

    def count(self, counter: str, number: int = 1) -> None:
        self.run.task.counters[self.pipeline, self.name, counter] += number

    def firing(self, key: Any, timestamp_ms: int, name: str = "") -> Any:
        return self.run.guard_firing(self, key, timestamp_ms, name)

    def send(
        self,
        topic: str,
        keys: Sequence[Any],
        values: Sequence[Any],
        timestamps: Sequence[int],
        headers: Sequence[Headers] | None = None,
    ) -> None:
        if self.traced:
            headers = [(*own, *self.traced) for own in headers or [()] * len(keys)]
        encode_side(self.run.task.outputs, topic, self._sides.get(topic), keys, values, timestamps, headers)

    def refuse(self, batch: RecordBatch, row: int, error: Exception) -> None:
        """Send a bad record of a broadcast topic to the dead letters, once however many tasks read it."""
        task = self.run.task
        if task.plan.on_error == "fail":
            raise error
        if batch.partition % task.plan.partitions == task.number:
            task.dead_letter(batch, row, self.pipeline, self.name, error)

    def inputs_idle(self, port: int) -> bool:
        """Return whether everything that reaches an input port is idle."""
        upstream, _ = self.node.inputs[port]
        return all(source.idle for source in self.run.inputs_of[upstream])


class PipelineRun:
    """Operators of one pipeline in one task.

    Attributes:
        inputs, broadcasts: By topic.
        inputs_of: What leads to a node.
        upstream_of: What leads to each repartition topic that the pipeline writes.
    """

    def __init__(self, task: "Task", graph: PipelineGraph) -> None:
        self.task = task
        self.name = graph.name
        self.careful = False
        self.entered = "source"
        self.inputs: dict[str, Input] = {}
        self.broadcasts: dict[str, Input] = {}
        self.inputs_of: dict[Node, tuple[Input, ...]] = {}
        self.upstream_of: dict[str, tuple[Input, ...]] = {}
        self.operators: dict[str, Operator] = {}
        self._traced: dict[str, Traced] = {}
        self._graph = graph
        self._build()

    def start(self) -> None:
        """Tell every operator the time that the restored state has reached."""
        for source in self.inputs.values():
            source.emit(advance(source.watermark, source.watermark))

    def feed(self, source: Input, block: Block) -> None:
        """Take a block in, with the care that the module's docstring describes."""
        self._attempt(lambda: self._emit(source, block), lambda: self._replay(source, block))

    def _emit(self, source: Input, block: Block) -> None:
        if source not in self._crossing:
            source.emit(block)
            return
        # On two ways to one operator a block would arrive as a whole on the first before the second: its size would show.
        for piece in one_by_one(block):
            source.emit(piece)

    def on_wall_clock(self, now_ms: int) -> None:
        """Let wall-clock timers fire."""
        for operator in self.operators.values():
            due_ms = operator.next_wall_clock_ms()
            if due_ms is not None and due_ms <= now_ms:
                self._attempt(lambda op=operator: op.on_wall_clock(now_ms), lambda op=operator: op.on_wall_clock(now_ms))  # type: ignore[misc]

    def next_wall_clock_ms(self) -> int | None:
        """Return the earliest time at which a wall-clock timer is due."""
        return min((due for op in self.operators.values() if (due := op.next_wall_clock_ms()) is not None), default=None)

    def before_commit(self) -> None:
        """Let operators emit what comes out once a commit; upstream ones first."""
        for operator in self.operators.values():
            self._attempt(operator.before_commit, operator.before_commit)
        for traced in self._traced.values():
            traced.before_commit()

    def held_whole(self) -> list[str]:
        """Return the names of operators that only broadcast topics lead to: every task holds all of their state."""
        return [node.name for node in self._graph.nodes if node.name in self.operators and not self.inputs_of[node]]

    # -- errors

    def _attempt(self, act: Callable[[], None], again: Callable[[], None]) -> None:
        task = self.task
        mark = task.mark()
        try:
            act()
        except NOT_THE_RECORDS_FAULT:
            raise
        except Exception:
            if task.plan.on_error == "fail":
                raise
            task.rollback(mark)
            self.careful = True
            try:
                again()
            finally:
                self.careful = False
        task.state.forget()

    def _replay(self, source: Input, block: Block) -> None:
        for piece in one_by_one(block):
            if not len(piece):
                source.emit(piece)
                continue
            mark = self.task.mark()
            try:
                source.emit(piece)
            except NOT_THE_RECORDS_FAULT:
                raise
            except Exception as error:  # noqa: BLE001  # user code raised: the record is bad
                operator = self.entered
                self.task.rollback(mark)
                assert piece.batch is not None
                self.task.dead_letter(piece.batch, piece.row(0), self.name, operator, error)

    @contextmanager
    def guard_firing(self, context: NodeContext, key: Any, timestamp_ms: int, name: str) -> Iterator[None]:
        """Undo one firing that raises, and send it to the dead letters."""
        assert self.careful
        mark = self.task.mark()
        try:
            yield
        except NOT_THE_RECORDS_FAULT:
            raise
        except Exception as error:  # noqa: BLE001  # user code raised: the firing is bad
            self.task.rollback(mark)
            headers = firing_headers(name=name, timestamp_ms=timestamp_ms, pipeline=self.name, operator=context.name, error=error)
            context.count("dead_letters")
            self.task.add_dead_letter(context.key_bytes(key), None, timestamp_ms, headers)

    # -- wiring

    def _build(self) -> None:
        task = self.task
        for node in self._graph.nodes:
            upstream = tuple(dict.fromkeys(source for read, _ in node.inputs for source in self.inputs_of[read]))
            if node.source is not None and node.is_broadcast:
                self.broadcasts[node.source.topic] = BroadcastInput(task, node.source)
                self.inputs_of[node] = ()
            elif node.source is not None:
                source: Input = SourceInput(task.sources[node.source.topic], task, self.name)
                self.inputs[node.source.topic] = source
                self.inputs_of[node] = (source,)
            elif node.kind == "repartition":
                topic = task.plan.repartitions[node]
                context = NodeContext(self, node)
                self.operators[node.name] = RepartitionSink(context, node, topic, task.outputs, task.plan.epoch)
                repartition = RepartitionInput(task.state, node, context.state_name("upstreams"), task.plan)
                self.inputs[topic] = repartition
                self.upstream_of[topic] = upstream
                self.inputs_of[node] = (repartition,)
            else:
                self.inputs_of[node] = upstream
                context = NodeContext(self, node)
                if node.sink is not None:
                    self.operators[node.name] = TopicSink(context, node, task.outputs)
                else:
                    assert node.make is not None
                    operator = self.operators[node.name] = node.make(context)
                    if operator.reach is not None:
                        self._traced[node.name] = Traced(operator, operator.reach, context, node.key_type)
        for node in self._graph.nodes:
            self._wire(node)
        self._crossing = {self.inputs_of[node][0] for node in self._graph.crossing()}

    def _wire(self, node: Node) -> None:
        readers = self._graph.readers(node)
        if node.source is not None and node.is_broadcast:
            self.broadcasts[node.source.topic].emit = self._emitter([(reader, port) for reader, port, _ in readers])
            return
        if node.source is not None or node.kind == "repartition":
            self.inputs_of[node][0].emit = self._emitter([(reader, port) for reader, port, _ in readers])
            return
        operator = self.operators[node.name]
        if isinstance(operator, Branch):
            count = operator.output_count
            operator.outputs = [
                self._emitter([(reader, port) for reader, port, output in readers if output == number]) for number in range(count)
            ]
        else:
            outside = self._traced.get(node.name, operator)
            outside.emit = self._emitter([(reader, port) for reader, port, _ in readers])

    def _emitter(self, readers: list[tuple[Node, int]]) -> Emit:
        targets = [((self._traced.get(reader.name) or self.operators[reader.name]).process, port, reader.name) for reader, port in readers]
        if len(targets) == 1:
            process, port, name = targets[0]

            def emit_to_one(block: Block) -> None:
                self.entered = name
                process(block, port)

            return emit_to_one

        def emit(block: Block) -> None:
            for process, port, name in targets:
                self.entered = name
                process(block, port)

        return emit
