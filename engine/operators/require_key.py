"""Where keys begin to matter: records without a key, or in another partition than their key says, go to the dead letters."""

from typing import TYPE_CHECKING, Any, cast

from engine.block import Block
from engine.errors import RecordError
from engine.operators.base import Operator, OperatorContext
from state.hashing import key_hashes

if TYPE_CHECKING:
    from engine.run import NodeContext

_KNOWN_MAX = 100_000


class RequireKey(Operator):
    """Refuse records with a null key; they would all count as one."""

    def process(self, block: Block, port: int = 0) -> None:
        if None in block.keys:
            raise RecordError("the record has no key, and the next operator needs one; give the source key=..., or use key_by")
        self.emit(block)


class RequirePlace(Operator):
    """Refuse records whose key belongs into another partition: what they are to be joined with is not here."""

    def __init__(self, context: OperatorContext) -> None:
        super().__init__(context)
        # A join stands in a graph, whose context knows the plan.
        self._partitions = cast("NodeContext", context).run.task.plan.partitions
        self._known: set[Any] = set()

    def process(self, block: Block, port: int = 0) -> None:
        if self._partitions > 1:
            known = self._known
            unknown = [key for key in dict.fromkeys(block.keys) if key not in known]
            for key, number in zip(unknown, key_hashes(list(map(self.context.key_bytes, unknown))), strict=True):
                self._check(key, number % self._partitions)
            known.update(unknown)
            if len(known) > _KNOWN_MAX:
                known.clear()
        self.emit(block)

    def _check(self, key: Any, place: int) -> None:
        if place != self.context.partition:
            raise RecordError(
                f"key {key!r} belongs into partition {place}, and the record came in partition {self.context.partition}: its producer "
                "places records in another way than by the murmur2 hash of this key; use key_by to move them"
            )
