"""Open transactions of a partition, and what is known of their ends.

A transaction that its coordinator takes for ended, but whose marker never reached a partition, *hangs*: the last stable offset of that
partition stays before it for ever, and no reader with `read_committed` gets any further.

    coordinator's log   Ongoing {revenue-3, changelog-3} → PrepareCommit {revenue-3, changelog-3} → CompleteCommit
    revenue-3           a a a  commit
    changelog-3         b b b  ▒ never written                      hanging from the first b on; decided: commit

What ends it is the marker that is missing, and only the coordinator's log knows which: a transaction that was committed elsewhere and is
aborted here is a lost result, or input that is taken twice.

Sources: KIP-664 (finding and aborting hanging transactions), KIP-890 (how they come about), KAFKA-20734.
"""

from dataclasses import dataclass
from typing import Literal

from engine.records import TopicPartition

Decision = Literal["commit", "abort"]


@dataclass(frozen=True, slots=True)
class OpenTransaction:
    """What a producer has open in one partition.

    Attributes:
        start_offset: Its first record there; readers wait before it.
        last_timestamp_ms: The time of its last record there, as the record says.
        coordinator_epoch: Of the last marker that the producer had there, -1 if it had none.
        transactional_id: None if no coordinator knows the producer any more.
        hangs: No coordinator knows of a transaction of this producer with this partition in it.
        decided: How the coordinator has ended it, None if its log does not say (any more).
    """

    partition: TopicPartition
    start_offset: int
    producer_id: int
    producer_epoch: int
    coordinator_epoch: int
    last_timestamp_ms: int
    transactional_id: str | None = None
    hangs: bool = False
    decided: Decision | None = None

    @property
    def place(self) -> str:
        """Where it begins, as commands and messages name it: `topic-partition@offset`."""
        return f"{self.partition.topic}-{self.partition.partition}@{self.start_offset}"

    def __str__(self) -> str:
        owner = "an unknown transactional id" if self.transactional_id is None else self.transactional_id
        if not self.hangs:
            state = "running"
        elif self.decided is None:
            state = "hanging, its end is not known"
        else:
            state = f"hanging, its end was decided: {self.decided}"
        return f"{self.place} of producer {self.producer_id} epoch {self.producer_epoch} ({owner}): {state}"
