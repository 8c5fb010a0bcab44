"""A watermark of one's own: a class that looks at each record and says how far event time has come.

    class Punctuated(WatermarkGenerator):
        '''Some records say themselves that everything before them has been sent.'''

        idle: ClassVar[Duration | None] = "5m"
        marks: int = 0                                        # a field: part of the state, so it survives restarts

        def on_record(self, timestamp_ms: int, value: Reading) -> int | None:
            if not value.is_mark:
                return None                                   # the watermark stays where it is
            self.marks += 1
            return timestamp_ms

    app.source("readings", Reading, time="ts", watermark=Punctuated)

One object is made for each task and source, that is, for each partition. Its fields are stored with the watermark in every commit,
and are handed out again after a restart or on another worker; an object of a class with another name starts anew (the watermark
itself goes on). What `on_record` returns counts only if it is higher than the watermark: time never goes back. It must be a
function of the records alone, with no clock, randomness or input and output, or a replay closes other windows.

Everything else is as with `bounded`: idleness, and `max_ahead`: a record too far in the future is not shown to the class, and a
candidate too far in the future is ignored; both are counted as `records_ahead`. A record at which `on_record` raises is a bad
record: it goes to the dead letters, and the object's fields are put back to what they were before it.

Source: Flink's `WatermarkGenerator` (FLIP-126), there with a second method that a clock calls.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from engine.durations import Duration, duration_ms
from engine.errors import ConfigError, RecordError

DEFAULT_IDLE = "1m"


class WatermarkGenerator(msgspec.Struct):
    """Base of watermark classes. Fields are state and need defaults; `idle` is a class variable, as in `bounded(idle=)`."""

    idle: ClassVar[Duration | None] = DEFAULT_IDLE

    if TYPE_CHECKING:
        on_record: ClassVar[Callable[..., int | None]]
        """Write `on_record(self, timestamp_ms)` or `on_record(self, timestamp_ms, value)`; called for each record, in order.

        Args:
            timestamp_ms: Its event time.
            value: Its value, read-only; leave the parameter out if it is not needed.
        Returns:
            The watermark after this record: no record at or below it is still to come. None, or less than before: as it is.
        """


@dataclass(frozen=True, slots=True)
class Reached:
    """What some records did to the watermark.

    Attributes:
        before: Watermark in force before each record.
        watermark: After the last one.
        ahead: Number of records, or candidates, too far in the future.
        errors: What `on_record` raised, by index.
    """

    before: list[int]
    watermark: int
    ahead: int
    errors: dict[int, Exception]


class Generating:
    """Runs one object of a watermark class over the records of a partition."""

    def __init__(self, made_of: type[WatermarkGenerator], stored: tuple[str, bytes]) -> None:
        self._made_of = made_of
        self._takes_value = _takes_value(made_of)
        name, state = stored
        if name == made_of.__name__ and state:
            try:
                self._load(state)
            except msgspec.ValidationError as error:
                raise ConfigError(
                    f"watermark class {name}: its stored fields do not fit any more ({error}); keep the types of its fields and give "
                    "new ones a default, or give the class another name, so that it starts anew"
                ) from error
        else:
            self._object = made_of()

    def stored(self) -> tuple[str, bytes]:
        """Return what to store: the name of the class and its fields."""
        return self._made_of.__name__, msgspec.msgpack.encode(self._object)

    def take(self, timestamps: Sequence[int], values: Sequence[Any], start: int, limit_ms: int | None) -> Reached:
        """Show records to the object, from the watermark `start` on; the limit as in `SourceClock.take`."""
        _, state = self.stored()
        try:
            return self._run(timestamps, values, start, limit_ms)
        except Exception:  # noqa: BLE001  # user code: which record it was is found record by record
            self._load(state)
        watermark, ahead = start, 0
        before: list[int] = []
        errors: dict[int, Exception] = {}
        for index in range(len(timestamps)):
            before.append(watermark)
            _, state = self.stored()
            try:
                reached = self._run(timestamps[index : index + 1], values[index : index + 1], watermark, limit_ms)
                watermark, ahead = reached.watermark, ahead + reached.ahead
            except Exception as error:  # noqa: BLE001  # user code: the record is bad
                errors[index] = error
                self._load(state)
        return Reached(before, watermark, ahead, errors)

    def _run(self, timestamps: Sequence[int], values: Sequence[Any], start: int, limit_ms: int | None) -> Reached:
        on_record: Callable[..., int | None] = self._object.on_record
        takes_value = self._takes_value
        before, watermark, ahead = [], start, 0
        for timestamp_ms, value in zip(timestamps, values, strict=True):
            before.append(watermark)
            if limit_ms is not None and timestamp_ms > limit_ms:
                ahead += 1
                continue
            candidate = on_record(timestamp_ms, value) if takes_value else on_record(timestamp_ms)
            if candidate is None:
                continue
            if type(candidate) is not int or not -(2**62) < candidate < 2**62:
                raise RecordError(f"on_record of a watermark class must give whole milliseconds or None, not {candidate!r}")
            if limit_ms is not None and candidate > limit_ms:
                ahead += 1
            elif candidate > watermark:
                watermark = candidate
        return Reached(before, watermark, ahead, {})

    def _load(self, state: bytes) -> None:
        self._object = msgspec.msgpack.decode(state, type=self._made_of)


def check_generator(made_of: type[Any], what: str) -> int | None:
    """Check a watermark class at declaration; return its idle time in milliseconds.

    Raises:
        ConfigError: It is no `WatermarkGenerator`, lacks `on_record`, cannot be made without arguments, or its fields cannot be stored.
    """
    name = made_of.__name__
    if not issubclass(made_of, WatermarkGenerator):
        raise ConfigError(f"{what}: watermark={name} must derive from WatermarkGenerator (or use bounded('30s') or monotonic())")
    if not callable(getattr(made_of, "on_record", None)):
        raise ConfigError(f"{what}: watermark class {name} has no method on_record(self, timestamp_ms, value)")
    _takes_value(made_of, what)
    if made_of.__struct_config__.frozen:
        raise ConfigError(f"{what}: watermark class {name} is frozen: its fields could never change")
    try:
        made_of()
    except TypeError as error:
        raise ConfigError(f"{what}: watermark class {name} is made without arguments; give each field a default: {error}") from error
    try:
        msgspec.msgpack.decode(msgspec.msgpack.encode(made_of()), type=made_of)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{what}: the fields of watermark class {name} cannot be stored: {error}") from error
    return None if made_of.idle is None else duration_ms(made_of.idle, f"idle of watermark class {name} of {what}", minimum_ms=1)


def _takes_value(made_of: type[WatermarkGenerator], what: str = "") -> bool:
    """Return whether `on_record` takes the value too."""
    signature = inspect.signature(made_of.on_record)
    for arguments in ((None, 0, None), (None, 0)):
        try:
            signature.bind(*arguments)
        except TypeError:
            continue
        return len(arguments) == 3
    raise ConfigError(f"{what}: {made_of.__name__}.on_record must take (self, timestamp_ms) or (self, timestamp_ms, value)")
