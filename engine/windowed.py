"""`WindowedStream`: a stream cut into windows, between `Stream.window` and the aggregation that says what comes out."""

from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from engine.agg import Aggregate
from engine.codecs import JsonCodec
from engine.errors import ConfigError
from engine.graph import SideSpec
from engine.missing import WINDOWED_HINTS, Hinted
from engine.operators.combine import combining
from engine.operators.window import WindowSpec, window_operator
from engine.triggers import Trigger
from engine.windows import Window

if TYPE_CHECKING:
    from engine.stream import Stream

K = TypeVar("K")
V = TypeVar("V")
S = TypeVar("S")


class WindowedStream(Hinted, Generic[K, V]):
    """A stream cut into windows; `aggregate` says what comes out of each."""

    _is, _hints = "a stream in windows", WINDOWED_HINTS

    def __init__(self, stream: "Stream[K, V]", window: Window, lateness_ms: int, late_to: str | None, trigger: Trigger | None) -> None:
        self._stream = stream
        self._window = window
        self._lateness_ms = lateness_ms
        self._late_to = late_to
        self._trigger = trigger

    def _stands_in(self) -> str:
        return self._stream._stands_in()

    @overload
    def aggregate(
        self, *, emit: Literal["close", "update"] = ..., into: type[S], key_as: str = ..., **aggregates: Aggregate
    ) -> "Stream[K, S]": ...
    @overload
    def aggregate(
        self, *, emit: Literal["close", "update"] = ..., into: None = ..., key_as: str = ..., **aggregates: Aggregate
    ) -> "Stream[K, dict[str, Any]]": ...
    def aggregate(
        self, *, emit: Literal["close", "update"] = "close", into: type[Any] | None = None, key_as: str = "key", **aggregates: Aggregate
    ) -> "Stream[K, Any]":
        """Give one result for each key and window.

        Args:
            emit: "close": once, final, when the watermark has passed the window's end and the lateness; "update": the latest
                value of each window that changed, once a commit.
            into: A Struct (or dataclass) with the result's fields; a dict otherwise.
            key_as: Name of the field that takes the key.
            aggregates: Field name and aggregate, such as `revenue_cents=agg.sum("amount_cents")`.
        Returns:
            A stream of results with the key under `key_as`, `window_start`, `window_end` (ms) and the named fields; its
            records have the window's key and the timestamp `window_end - 1`. Results of `windows.everything()` have no bounds
            and the timestamp of their last record.
        """
        stream = self._stream
        if emit not in ("close", "update"):
            raise ConfigError(f"{stream._what('window')}: emit={emit!r} is not known; use 'close' or 'update'")
        spec = WindowSpec(
            window=self._window,
            aggregates=stream._aggregates(aggregates, "window"),
            lateness_ms=self._lateness_ms,
            late_to=self._late_to,
            trigger=self._trigger,
            emit=emit,
            into=into,
            key_as=key_as,
            key_type=stream._key_type,
            value_type=stream._value_type,
        )
        sides = [] if self._late_to is None else [SideSpec(self._late_to, JsonCodec(Any))]
        signature = f"window {self._window!r} " + " ".join(sorted(aggregates))
        node = stream._node_after(
            "window", window_operator(spec, stream._what("window")), value_type=into or dict, signature=signature, sides=sides
        )
        node.combining = lambda: combining(spec, stream._what("window"))
        return stream._with(node, value_type=into or dict)
