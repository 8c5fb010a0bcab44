"""Where keys begin to matter: records without a key go to the dead letters."""

from engine.block import Block
from engine.errors import RecordError
from engine.operators.base import Operator


class RequireKey(Operator):
    """Refuse records with a null key; they would all count as one."""

    def process(self, block: Block, port: int = 0) -> None:
        if None in block.keys:
            raise RecordError("the record has no key, and the next operator needs one; give the source key=..., or use key_by")
        self.emit(block)
