"""What people tell an app while it runs, and what becomes of it: the topics `<app>-control` and `<app>-audit`.

    streamforge state put …  ──►  shop-control, partition hash % N  ──►  task  ──►  its state, in its next transaction
                                                                          └──────►  shop-audit: done, by whom, when, why

A command is a JSON object with its `kind`. The control topic is an input of the task like any other: its position is part of the
state, so a command is obeyed once, whatever happens to the worker, and the changelog stays the truth about the state. What cannot
be obeyed is refused in the audit, and the task goes on.

Edits are made here. For a savepoint a task has to wait for others: that is for the shell, which asks `requests` after each batch
(`engine.runtime.savepointing`); where there is no shell (`TestDriver`), it is refused.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from engine.edits import delete_key, put_entry
from engine.errors import StateError, StoredTypeError
from engine.keys import key_codec
from engine.records import RecordBatch
from state.catalog import Catalog
from state.keys import hash_of
from state.values import msgpack_codec

if TYPE_CHECKING:
    from engine.task import Task

CONTROL_FORMAT = 1


class _Command(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """What all commands say: their id, and who gives them, when and why."""

    id: str
    who: str = ""
    why: str = ""
    at_ms: int = 0


class Put(_Command, frozen=True, kw_only=True, tag="put"):
    """Set one entry of a state ("pipeline/operator/state") to a value, as `streamforge state scan` shows it."""

    state: str
    key: Any
    value: Any
    sub: Any = None
    time_ms: int | None = None


class Delete(_Command, frozen=True, kw_only=True, tag="delete"):
    """Delete a key from one state, or from all (None).

    Attributes:
        key: Its bytes on the wire.
        is_text: Those bytes are what a person wrote, and mean in each state what `state put --key` takes them for: in one with numbers
            as keys `007` is 7, and a Struct's fields may stand in any order.
    """

    key: bytes
    state: str | None = None
    is_text: bool = False

    @property
    def sought(self) -> bytes | str:
        """The key as what looks for it takes it: bytes on the wire, or text."""
        return self.key.decode(errors="surrogateescape") if self.is_text else self.key


class TakeSavepoint(_Command, frozen=True, kw_only=True, tag="savepoint"):
    """Stop the sources, let everything that is on its way arrive, take the state, and write it to a folder.

    Attributes:
        epoch: That of the app: what an earlier epoch was asked for is not done again when a restored one reads on in the topic.
        stop: Do not go on afterwards.
        timeout_ms: Give up and go on if the others are not there by then.
    """

    folder: str
    epoch: int
    stop: bool = False
    timeout_ms: int = 60_000


class Resume(_Command, frozen=True, kw_only=True, tag="resume"):
    """Every task has its cut: go on."""


class Abort(_Command, frozen=True, kw_only=True, tag="abort"):
    """No savepoint comes of it: go on; "*" as id means any."""


class End(_Command, frozen=True, kw_only=True, tag="end"):
    """The savepoint is complete and was to be the end of this epoch."""

    name: str


Command = Put | Delete | TakeSavepoint | Resume | Abort | End
Request = TakeSavepoint | Resume | Abort | End


class Report(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A record of the audit topic.

    Attributes:
        id, who, why, at_ms: Those of the command; at_ms is when it was given.
        kind: put, delete, refused; of a savepoint: cut, written, failed, ended.
        done_ms: When the task obeyed.
        entries: How many were written or deleted.
        more: What a task says of its part of a savepoint.
    """

    id: str
    kind: str
    task: int
    done_ms: int
    who: str = ""
    why: str = ""
    at_ms: int = 0
    state: str = ""
    entries: int = 0
    error: str = ""
    more: dict[str, Any] = {}


class Mark(msgspec.Struct, frozen=True):
    """A savepoint that a task takes part in, as it is stored: `phase` is begun, cut, writing (it goes on, and owes its part) or ended."""

    id: str
    phase: str
    stop: bool = False
    name: str = ""


class ControlInput:
    """The control topic as an input of a task."""

    def __init__(self, task: "Task") -> None:
        self._task = task
        self._cells = task.state.keyed("_task/savepoint", key_codec(str), msgpack_codec(Mark))
        self.requests: list[Request] = []
        self.has_shell = False

    @property
    def mark(self) -> Mark | None:
        """The savepoint that this task takes part in."""
        return self._cells.get("")

    def set_mark(self, mark: Mark | None) -> None:
        """Note how far a savepoint has come here; None when it is over."""
        self._task.dirty = True
        self._cells.put("", mark)

    def take(self, batch: RecordBatch) -> None:
        """Obey a batch of commands, one after another."""
        for value in batch.values:
            try:
                command = _decode(value)
            except msgspec.MsgspecError as error:
                self.report(Abort(id="?"), "refused", error=f"not a command: {error}")
                continue
            if isinstance(command, Put | Delete):
                self._edit(command)
            elif isinstance(command, TakeSavepoint) and command.epoch != self._task.plan.epoch:
                continue
            elif self.has_shell:
                self.requests.append(command)
            else:
                self.report(command, "refused", error="a savepoint needs a worker")

    def report(
        self, command: Command, kind: str, *, state: str = "", entries: int = 0, error: str = "", more: Mapping[str, Any] | None = None
    ) -> None:
        """Say in the audit topic, with the next commit, what became of a command."""
        task = self._task
        report = Report(
            id=command.id,
            kind=kind,
            task=task.number,
            done_ms=task.now_ms,
            who=command.who,
            why=command.why,
            at_ms=command.at_ms,
            state=state,
            entries=entries,
            error=error,
            more=dict(more or {}),
        )
        task.dirty = True
        task.outputs.add_to(task.plan.audit_topic, 0, max(0, task.now_ms), command.id.encode(), msgspec.json.encode(report))

    def _edit(self, command: Put | Delete) -> None:
        task = self._task
        mark = task.mark()
        try:
            if isinstance(command, Put):
                kind, entries = "put", put_entry(task, command.state, command.key, command.value, command.time_ms, command.sub)
            else:
                kind, entries = "delete", delete_key(task, command.sought, command.state)
        except (StateError, StoredTypeError) as error:
            task.rollback(mark)
            self.report(command, "refused", state=command.state or "", error=str(error))
            return
        for run in task.runs.values():
            for operator in run.operators.values():
                operator.rolled_back()
        task.state.forget()
        self.report(command, kind, state=command.state or "", entries=entries)


_decoder = msgspec.json.Decoder(Command)


def _decode(value: bytes | None) -> Command:
    command: Command = _decoder.decode(value or b"")
    return command


def partitions_for(command: Command, catalog: Catalog, partitions: int) -> list[int]:
    """Return the partitions of the control topic that a command goes to: that of its key's hash for a put, else all.

    Raises:
        StateError: A put that does not fit the state that it names.
    """
    if not isinstance(command, Put):
        return list(range(partitions))
    spec = catalog.spec(command.state)
    raw_key = spec.store_key(command.key, time_ms=command.time_ms, sub=command.sub)
    return [hash_of(raw_key, spec.hash_at()) % partitions]


def is_edit(value: bytes | None) -> bool:
    """Return whether a record of the control topic changes state."""
    try:
        return isinstance(_decode(value), Put | Delete)
    except msgspec.MsgspecError:
        return False


def encode_command(command: Command) -> bytes:
    """Return a command as a record's value."""
    return msgspec.json.encode(command)
