"""`App`: a Faust app whose pipelines are run by this engine.

    app = App("shop", broker="kafka://localhost:9092", state_dir="var/state")
    orders = app.source("orders", Order, key="user_id", time="ts", watermark=bounded("30s"))

    @app.pipeline(orders)
    def revenue(orders): ...

    $ faust -A shop.py worker       or  app.main()  and  python shop.py worker

Every pipeline is a genuine Faust agent, and plain agents, timers, commands and pages work beside them. What Faust itself offers
for state and exactly-once (`Table`, `processing_guarantee`, …) is refused, with the name of what takes its place.

Environment variables beat arguments: STREAMFORGE_BROKER, STREAMFORGE_STATE_DIR, STREAMFORGE_PARTITIONS,
STREAMFORGE_COMMIT_INTERVAL, STREAMFORGE_CHECKPOINT_INTERVAL, STREAMFORGE_ON_ERROR, STREAMFORGE_MAX_AHEAD and
STREAMFORGE_MAX_SKEW ("none" switches either off), STREAMFORGE_GRACE, STREAMFORGE_CHECKPOINTS, STREAMFORGE_CHECKPOINTS_KEPT,
STREAMFORGE_STANDBYS, STREAMFORGE_INSTANCE_ID, STREAMFORGE_BROKER_WAIT ("none" waits for ever); `--datadir` of the command line
beats STREAMFORGE_STATE_DIR. Faust's own settings have the same prefix, such as STREAMFORGE_WEB_PORT and STREAMFORGE_WEB_BIND.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn, ParamSpec, TypeVar

import faust
from mode.supervisors import CrashingSupervisor
from mode.types import ServiceT
from yarl import URL

from engine.durations import Duration
from engine.errors import ConfigError
from engine.runtime.checkpointing import Checkpoints
from engine.runtime.clock import Clock, SystemClock
from engine.runtime.declaring import Declarations
from engine.runtime.fast_loop import use_uvloop
from engine.runtime.faust_seam import commands
from engine.runtime.faust_seam.app_files import answer_to_file_name
from engine.runtime.faust_seam.boot import Boot, RunnerService
from engine.runtime.faust_seam.deliveries import BatchChannel, agent_function, batch_channel, deliver_through
from engine.runtime.faust_seam.refused import refuse, refuse_leader
from engine.runtime.faust_seam.settings import for_faust
from engine.runtime.faust_seam.side_connection import Connection
from engine.runtime.faust_seam.side_transport import SideTransport
from engine.runtime.faust_seam.state_pages import state_pages
from engine.runtime.faust_seam.web import web_address, worker_pages
from engine.runtime.metrics import Metrics
from engine.runtime.options import read_options
from engine.runtime.runner import Runner
from engine.runtime.shell import OpenStore
from engine.runtime.state_reader import StateReader
from engine.runtime.stores import StateFolder
from engine.runtime.transport.protocol import Transport
from engine.runtime.transports import make_transport
from engine.sources import Source
from engine.topology import Pipeline, Topology
from state.checkpoint import RemotePlace
from state.remote import open_folder

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])

__all__ = ["App", "commands"]


class App(Declarations, faust.App):
    """An app: sources, pipelines, and whatever else a Faust app has.

    Args:
        id: Name of the app: the consumer group, and prefix of internal topics and transactional ids.
        broker: "kafka://host:9092,host2:9092" or "memory://".
        state_dir: Folder of the local state, one sub-folder a task.
        partitions: Number of partitions of every topic of the app.
        commit_interval: How often a task commits; "0ms": as soon as one commit is through, the next takes what has come in.
        checkpoint_interval: How often a checkpoint of local state is taken; what is in it survives a crash of the machine.
        checkpoints: Where checkpoints are kept besides the state folder, for a worker without its disk: "file:///folder",
            "gs://bucket/folder" or "s3://bucket/folder".
        checkpoints_kept: How many checkpoints of each task stay there.
        on_error: "dlq" sends bad records to `<id>-dlq`, "fail" stops the worker.
        max_ahead: A record more than this ahead of the wall clock moves no watermark; None switches that off.
        max_skew: A source partition whose watermark is more than this ahead of the slowest active one is paused until the other has
            caught up; among all partitions, of all workers, whose topics a pipeline reads together (`engine.runtime.alignment`). Sources
            need an idle time then.
        standbys: How many other workers keep a copy of each task's state, so that a takeover restores only the tail.
        state_memory_mib: What state may take in memory, over all tasks of a worker; the rest is on its disk.
        stall: A task that stands still for so long although there is input is opened again, a worker that hangs ends; None for never.
        broker_wait: How long a worker that starts waits for a broker that does not answer, before it ends; None for as long as it takes.
        instance_id: Name of this worker in its group, such as that of its pod: a restart within the session timeout moves nothing.
        grace: How long a shutdown may take.
        web_token: What requests for state must carry (`Authorization: Bearer …`); without one, only this machine may ask.
        options: Settings of Faust, such as `broker_credentials=faust.SSLCredentials(cafile="ca.pem")` or `web_port=6066`.

    Raises:
        ConfigError: An option that nobody knows, that has a replacement here, or with a wrong value.
    """

    BootStrategy = Boot

    def __init__(
        self,
        id: str,
        *,
        broker: str | None = None,
        state_dir: str | Path = "var/state",
        partitions: int = 12,
        commit_interval: Duration = "200ms",
        checkpoint_interval: Duration = "60s",
        on_error: str = "dlq",
        max_ahead: Duration | None = "1h",
        max_skew: Duration | None = None,
        standbys: int = 0,
        grace: Duration = "10s",
        web_token: str | None = None,
        checkpoints: str | None = None,
        checkpoints_kept: int = 3,
        instance_id: str | None = None,
        state_memory_mib: int = 256,
        stall: Duration | None = "60s",
        broker_wait: Duration | None = "5m",
        **options: Any,
    ) -> None:
        given = {
            "broker": broker,
            "state_dir": state_dir,
            "partitions": partitions,
            "commit_interval": commit_interval,
            "checkpoint_interval": checkpoint_interval,
            "on_error": on_error,
            "max_ahead": max_ahead,
            "max_skew": max_skew,
            "standbys": standbys,
            "grace": grace,
            "web_token": web_token,
            "checkpoints": checkpoints,
            "checkpoints_kept": checkpoints_kept,
            "instance_id": instance_id,
            "state_memory_mib": state_memory_mib,
            "stall": stall,
            "broker_wait": broker_wait,
            **options,
        }
        self.options, rest = read_options(id, given, self.Settings.setting_names(), os.environ)
        answer_to_file_name(sys.argv, os.environ)
        told = self.options
        self.topology = Topology(
            id, partitions=told.partitions, on_error=told.on_error, max_ahead_ms=told.max_ahead_ms, max_skew_ms=told.max_skew_ms
        )
        self.metrics = Metrics()
        self.clock: Clock = SystemClock()
        self.open_store: OpenStore | None = None
        self.runner: Runner | None = None
        self._channels: dict[str, BatchChannel] = {}
        urls = self.options.broker.replace(",", ";")
        rest = for_faust(self.options, rest)
        super().__init__(id, broker=urls, **rest)
        self.transport = self.producer_transport = self._side_transport(urls)
        self._add_pages()

    def _side_transport(self, urls: str) -> SideTransport:
        new_partitions = self.options.partitions if self._in_memory else None
        group = f"{self.topology.app_id}-agents"
        connection = Connection(lambda: self.make_transport(group), partitions=new_partitions, limits=self.options.limits())
        return SideTransport([URL(url) for url in urls.split(";")], self, connection=connection, now_ms=lambda: self.clock.now_ms())

    def _add_pages(self) -> None:
        self.state_reader = StateReader(lambda: self.runner)
        pages = worker_pages(self.metrics, lambda: ["not started yet"] if self.runner is None else self.runner.not_ready())
        for path, view in (pages | state_pages(self.state_reader, self.options.web_token)).items():
            self.page(path)(view)

    # -- declarations

    def pipeline(self, *sources: Source, name: str | None = None) -> Callable[[Callable[P, R]], Pipeline[P, R]]:
        """Declare a pipeline: the function takes the streams of the sources and returns a Sink, or several.

        It is called once, now. The decorated name stays usable in tests.
        """
        declare_pipeline = self.topology.pipeline(*sources, name=name)

        def declare(function: Callable[P, R]) -> Pipeline[P, R]:
            wanted = name or function.__name__
            if wanted in self.agents:
                raise ConfigError(f"pipeline {wanted!r}: an agent has this name already; give one of them another name=")
            pipeline = declare_pipeline(function)
            self._make_agent(pipeline, function.__module__)
            return pipeline

        return declare

    def adopt(self, topology: Topology) -> None:
        """Run the pipelines of another app's declaration, instead of any of one's own (tests, previews)."""
        if self.topology.pipelines:
            raise ConfigError(f"app {self.topology.app_id!r} has pipelines of its own")
        self.topology = topology
        for pipeline in topology.pipelines.values():
            self._make_agent(pipeline, pipeline.__module__)

    def _make_agent(self, pipeline: Pipeline[Any, Any], module: str) -> None:
        channel = self._channels[pipeline.name] = batch_channel(self)
        run = agent_function(pipeline.name, module=module, description=pipeline.graph.description)
        super().agent(channel, name=pipeline.name, supervisor_strategy=CrashingSupervisor)(run)

    def agent(self, channel: Any = None, *, name: str | None = None, **options: Any) -> Callable[[Callable[[Any], Any]], Any]:
        """Declare a plain Faust agent; it runs beside the pipelines, at least once, in a consumer group of its own."""
        if name is not None and name in self.topology.pipelines:
            raise ConfigError(f"agent {name!r}: a pipeline has this name already; give one of them another name=")
        return super().agent(channel, name=name, **options)

    def topic(self, *topics: str, value_type: Any = None, key_type: Any = None, **options: Any) -> Any:
        """Describe a topic for plain agents and for sending; a Struct as value or key type is read and written as JSON."""
        return super().topic(*topics, value_type=value_type, key_type=key_type, **options)

    # -- what Faust offers and this engine replaces

    def Table(self, name: str, **options: Any) -> NoReturn:  # noqa: N802  # Faust's name
        """Refuse: Faust's tables are not exactly once."""
        refuse(f"app.Table({name!r})", "use Stream.table(name), an aggregate, or state in process(...)")

    def GlobalTable(self, name: str, **options: Any) -> NoReturn:  # noqa: N802
        """Refuse."""
        refuse(f"app.GlobalTable({name!r})", "use app.broadcast(topic, ...)")

    def SetTable(self, name: str, **options: Any) -> NoReturn:  # noqa: N802
        """Refuse."""
        refuse(f"app.SetTable({name!r})", "use a MapState in process(...)")

    def SetGlobalTable(self, name: str, **options: Any) -> NoReturn:  # noqa: N802
        """Refuse."""
        refuse(f"app.SetGlobalTable({name!r})", "use app.broadcast(topic, ...)")

    def task(self, fun: Any = None, *, on_leader: bool = False, traced: bool = True) -> Any:  # type: ignore[override]
        """Run a function when the app has started."""
        refuse_leader(on_leader)
        return super().task(fun, traced=traced)

    def timer(self, interval: Any, on_leader: bool = False, **options: Any) -> Callable[[F], F]:  # type: ignore[override]
        """Run a function at intervals, in every worker."""
        refuse_leader(on_leader)
        return super().timer(interval, **options)  # type: ignore[no-any-return]

    def crontab(self, cron_format: str, *, on_leader: bool = False, **options: Any) -> Callable[[F], F]:  # type: ignore[override]
        """Run a function at set times, in every worker."""
        refuse_leader(on_leader)
        return super().crontab(cron_format, **options)

    @property
    def state_dir(self) -> Path:
        """Folder of the local state: `--datadir` of the command line, which Faust hands on in the environment, beats the rest."""
        given = os.environ.get("FAUST_DATADIR") or os.environ.get("F_DATADIR") or ""
        unset = not given or given.startswith("{conf.")  # the default of Faust's option is a template
        return self.options.state_dir if unset else Path(given)

    @property
    def _in_memory(self) -> bool:
        return self.options.broker.startswith("memory://")

    def make_transport(self, group: str, *, broker: str | None = None) -> Transport:
        """Return a connection to the broker, for a consumer group; `broker` is one that a command was told to use instead."""
        return make_transport(
            self.options.broker if broker is None else broker,
            group=group,
            credentials=self.conf.broker_credentials,
            stored_numbers=StateFolder(self.state_dir / self.topology.app_id).numbers,
            standbys=self.options.standbys,
            instance_id=self.options.instance_id,
            clock=self.clock,
            session_timeout_s=self.conf.broker_session_timeout,
            rebalance_timeout_s=self.conf.broker_rebalance_timeout,
            address=web_address(self.conf),
        )

    def pipeline_services(self) -> Iterable[ServiceT]:
        """Return the service that runs the pipelines, if there are any."""
        if self.topology.pipelines:
            yield RunnerService(self.make_runner, self.options.grace_s, self.options.stall_ms, loop=self.loop, beacon=self.beacon)

    async def make_runner(self) -> Runner:
        """Return the runner of the pipelines, whose batches go through the agents."""
        options = self.options
        folder = StateFolder(self.state_dir / self.topology.app_id, memory_mib=options.state_memory_mib)
        self.runner = Runner(
            self.topology.plan(),
            self.make_transport(self.topology.app_id),
            open_store=self.open_store or folder.open,
            deliver=deliver_through(self._channels, self.clock),
            clock=self.clock,
            limits=options.limits(),
            metrics=self.metrics,
            create_sources=self._in_memory,
            checkpoints=None if self.open_store is not None else self._checkpoints(folder.path),
        )
        return self.runner

    def _checkpoints(self, folder: Path) -> Checkpoints:
        remote = None if self.options.checkpoints is None else RemotePlace(open_folder(self.options.checkpoints))
        return Checkpoints(folder, self.topology.app_id, remote=remote, kept=self.options.checkpoints_kept)

    def worker_init(self) -> None:
        """Choose the event loop before Faust makes it."""
        use_uvloop(sys.argv)
        super().worker_init()

    async def on_first_start(self) -> None:
        """Make the state folder, parents too."""
        await asyncio.to_thread(lambda: self.state_dir.mkdir(parents=True, exist_ok=True))
