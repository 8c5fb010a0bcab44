"""The options of an `App`: ours are taken out and checked before Faust sees any; what nobody knows is an error.

    options, rest = read_options("shop", {"broker": "memory://", "commit_interval": "1s", "web_port": 7000}, known, environ)
    options.commit_interval_ms   1000        rest   {"web_port": 7000}

An environment variable `STREAMFORGE_<OPTION>` beats the argument, so that one image runs everywhere.
"""

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.durations import duration_ms
from engine.errors import ConfigError
from engine.runtime.shell import Limits
from state.errors import StateError
from state.remote import open_folder

PREFIX = "STREAMFORGE_"
_TOKEN_LENGTH_MIN = 16
ENTRY_BYTES = 512
"""What a decoded entry of a plain state takes with its key, its places in dicts, and what is remembered of its key."""

_MORE_OF_FAUST = ("monitor", "config_source", "loop", "beacon")
"""Arguments of a Faust app that are not among its settings."""

_REPLACED = {
    "processing_guarantee": "pipelines are always exactly once; leave it out",
    "table_standby_replicas": "use standbys=",
    "topic_partitions": "use partitions=",
    "broker_commit_interval": "use commit_interval=",
    "datadir": "use state_dir=",
    "tabledir": "use state_dir=",
    "store": "state is in state_dir=; tests choose a store in the TestDriver",
    "Table": "use Stream.table(name) or aggregates",
    "GlobalTable": "use app.broadcast(topic, ...)",
    "SetTable": "use a MapState in process(...)",
    "SetGlobalTable": "use app.broadcast(topic, ...)",
    "topic_disable_leader": "there is no leader topic; leave it out",
    "id_format": "the id of the app names its topics as it is",
    "version": "give the app another id",
}


@dataclass(frozen=True, slots=True)
class Options:
    """What an `App` was told.

    Attributes:
        broker: "memory://", "memory://name", or "kafka://host:9092,host2:9092".
        state_dir: Folder of the stores; `<state_dir>/<app id>/<task number>`.
        max_ahead_ms, max_skew_ms, stall_ms, broker_wait_ms: None when the limit is switched off.
        web_token: What whoever looks into the state must show; None: only this machine may.
        instance_id: Name of this worker in its group for static membership; None for none.
        state_memory_mib: A quarter for blocks that RocksDB has read, a quarter for what it has not written to files yet, half for decoded
            entries; shared by the tasks of a worker.
        checkpoints: Address of the place for checkpoints, None for none but beside the stores.
    """

    app_id: str
    broker: str
    state_dir: Path
    partitions: int
    commit_interval_ms: int
    checkpoint_interval_ms: int
    on_error: str
    max_ahead_ms: int | None
    max_skew_ms: int | None
    grace_s: float
    web_token: str | None
    checkpoints: str | None
    checkpoints_kept: int
    standbys: int
    instance_id: str | None
    stall_ms: int | None
    state_memory_mib: int
    broker_wait_ms: int | None

    def limits(self) -> Limits:
        """Return the bounds of a worker that they mean."""
        return Limits(
            commit_interval_ms=self.commit_interval_ms,
            checkpoint_interval_ms=self.checkpoint_interval_ms,
            grace_s=self.grace_s,
            stall_ms=self.stall_ms,
            broker_wait_ms=self.broker_wait_ms,
            cache_entries_max=(self.state_memory_mib << 20) // 2 // ENTRY_BYTES,
        )


_DEFAULTS: dict[str, Any] = {
    "broker": None,
    "state_dir": "var/state",
    "partitions": 12,
    "commit_interval": "200ms",
    "checkpoint_interval": "60s",
    "on_error": "dlq",
    "max_ahead": "1h",
    "max_skew": None,
    "standbys": 0,
    "grace": "10s",
    "web_token": None,
    "checkpoints": None,
    "checkpoints_kept": 3,
    "instance_id": None,
    "stall": "60s",
    "broker_wait": "5m",
    "state_memory_mib": 256,
}


def read_options(
    app_id: str, given: Mapping[str, Any], others: Collection[str], environ: Mapping[str, str]
) -> tuple[Options, dict[str, Any]]:
    """Return our options, checked, and what is left for Faust.

    Args:
        others: Names of the options that Faust knows.
    Raises:
        ConfigError: An option that nobody knows, that has a replacement here, that is not built yet, or with a wrong value.
    """
    what = f"app {app_id!r}"
    if not app_id or not isinstance(app_id, str):
        raise ConfigError(f"an app needs an id, such as App('shop', ...), not {app_id!r}")
    for name in given:
        if name in _REPLACED:
            raise ConfigError(f"{what}: {name}= of Faust is not used here: {_REPLACED[name]}")
        if name not in _DEFAULTS and name not in others and name not in _MORE_OF_FAUST:
            close = difflib.get_close_matches(name, [*_DEFAULTS, *others], 1)
            hint = f"; did you mean {close[0]}=?" if close else ""
            raise ConfigError(f"{what}: option {name}= is not known{hint}")
    values = {**_DEFAULTS, **{name: value for name, value in given.items() if name in _DEFAULTS}}
    for name in _DEFAULTS:
        text = environ.get(PREFIX + name.upper())
        if text is not None:
            values[name] = text
    options = Options(
        app_id=app_id,
        broker=_broker(what, values["broker"]),
        state_dir=Path(values["state_dir"]),
        partitions=_number(what, "partitions", values["partitions"]),
        commit_interval_ms=duration_ms(values["commit_interval"], f"{what}: commit_interval"),
        checkpoint_interval_ms=duration_ms(values["checkpoint_interval"], f"{what}: checkpoint_interval", minimum_ms=1),
        on_error=values["on_error"],
        max_ahead_ms=None if values["max_ahead"] in (None, "none") else duration_ms(values["max_ahead"], f"{what}: max_ahead"),
        max_skew_ms=None if values["max_skew"] in (None, "none") else duration_ms(values["max_skew"], f"{what}: max_skew", minimum_ms=1),
        grace_s=duration_ms(values["grace"], f"{what}: grace") / 1_000,
        web_token=_token(what, values["web_token"]),
        checkpoints=_place(what, values["checkpoints"]),
        checkpoints_kept=_number(what, "checkpoints_kept", values["checkpoints_kept"]),
        standbys=_number(what, "standbys", values["standbys"], least=0),
        instance_id=_instance(what, values["instance_id"]),
        stall_ms=None if values["stall"] in (None, "none") else duration_ms(values["stall"], f"{what}: stall", minimum_ms=1_000),
        state_memory_mib=_number(what, "state_memory_mib", values["state_memory_mib"], least=8),
        broker_wait_ms=None if values["broker_wait"] in (None, "none") else duration_ms(values["broker_wait"], f"{what}: broker_wait"),
    )
    return options, {name: value for name, value in given.items() if name not in _DEFAULTS}


def _instance(what: str, instance: object) -> str | None:
    if instance is not None and (not isinstance(instance, str) or not instance):
        raise ConfigError(f"{what}: instance_id={instance!r}; give each worker a name of its own, such as that of its pod")
    return instance


def _broker(what: str, broker: object) -> str:
    if not isinstance(broker, str):
        raise ConfigError(f"{what}: broker={broker!r}; give broker='kafka://host:9092' or broker='memory://'")
    scheme = broker.partition("://")[0]
    if scheme not in ("kafka", "memory") or "://" not in broker:
        raise ConfigError(f"{what}: broker={broker!r} is not known; use 'kafka://host:9092' or 'memory://'")
    return broker


def _token(what: str, token: object) -> str | None:
    if token is not None and (not isinstance(token, str) or len(token) < _TOKEN_LENGTH_MIN or not token.isascii()):
        raise ConfigError(f"{what}: web_token must be an ASCII text of at least {_TOKEN_LENGTH_MIN} characters")
    return token


def _place(what: str, url: object) -> str | None:
    if url in (None, "none"):
        return None
    if not isinstance(url, str) or "://" not in url:
        raise ConfigError(f"{what}: checkpoints={url!r}; give an address such as 'file:///folder', 'gs://bucket/folder' or 's3://bucket'")
    try:
        open_folder(url)
    except StateError as error:
        raise ConfigError(f"{what}: checkpoints={url!r}: {error}") from None
    return url


def _number(what: str, name: str, value: object, *, least: int = 1) -> int:
    try:
        number = int(value)  # type: ignore[call-overload]  # whatever int() takes; the text of an environment variable too
    except (TypeError, ValueError):
        raise ConfigError(f"{what}: {name}={value!r} is not a whole number") from None
    if isinstance(value, float) or number < least:
        raise ConfigError(f"{what}: {name}={value!r} must be a whole number of at least {least}")
    return int(number)
