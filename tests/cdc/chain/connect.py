"""A real Kafka Connect with Debezium and the Avro converter of Apicurio, as a child process that may be killed and started again."""

import json
import re
import signal
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from typing import Any, Self

from tests.cdc.chain.postgres import Postgres
from tests.cdc.chain.process import Service
from tests.maven import archive, jars, java_command, java_program
from tests.ports import free_port

KAFKA, DEBEZIUM, CONVERTER = "4.3.1", "3.5.0.Final", "2.6.13.Final"
_PROVIDED = ("connect-api", "connect-json", "kafka-clients", "slf4j-api")
_SETTINGS = {
    "key.converter": "org.apache.kafka.connect.json.JsonConverter",
    "value.converter": "org.apache.kafka.connect.json.JsonConverter",
    "key.converter.schemas.enable": "false",
    "value.converter.schemas.enable": "false",
    "offset.flush.interval.ms": "2000",
    "plugin.discovery": "service_load",
    "connector.client.config.override.policy": "All",
    "topic.creation.enable": "true",
    "scheduled.rebalance.max.delay.ms": "0",
}
_LOG4J = """appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d %p %m (%c)%n
rootLogger.level = WARN
rootLogger.appenderRef.out.ref = out
"""


class Connect:
    """One worker in distributed mode.

    Life: `start` → (`kill` → `start`)* → `stop`. Its offsets lie in Kafka.

    Args:
        bootstrap: The broker, `host:port`.
    """

    def __init__(self, bootstrap: str, *, heap_mb: int = 512) -> None:
        self._bootstrap, self._heap_mb = bootstrap, heap_mb
        self._port = free_port()
        self._service = Service("connect")
        self._java = java_program(17)
        self._jars = jars(
            f"connect-{KAFKA}",
            [
                "org.slf4j:slf4j-api:2.0.17",
                f"org.apache.kafka:connect-runtime:{KAFKA}",
                "org.apache.logging.log4j:log4j-slf4j2-impl:2.24.3",
            ],
        )
        self._plugins()

    def start(self) -> Self:
        """Run it and return when it answers."""
        topics = {
            f"{kind}.storage.{name}": value
            for kind in ("config", "offset", "status")
            for name, value in (("topic", f"_connect-{kind}-{self._port}"), ("replication.factor", "1"))
        } | {"offset.storage.partitions": "1", "status.storage.partitions": "1"}
        settings = {
            **_SETTINGS,
            **topics,
            "bootstrap.servers": self._bootstrap,
            "group.id": f"connect-{self._port}",
            "listeners": f"http://127.0.0.1:{self._port}",
            "plugin.path": str(self._service.folder / "plugins"),
        }
        (self._service.folder / "connect.properties").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        (self._service.folder / "log4j2.properties").write_text(_LOG4J)
        command = java_command(self._java, self._heap_mb)
        command += [f"-Dlog4j2.configurationFile={self._service.folder}/log4j2.properties", "-cp", self._jars]
        command += ["org.apache.kafka.connect.cli.ConnectDistributed", str(self._service.folder / "connect.properties")]
        self._service.start(command, self._answers)
        return self

    def kill(self) -> None:
        """End it as kill -9 does."""
        self._service.end(signal.SIGKILL)

    def stop(self) -> None:
        """End it and remove its folder."""
        self._service.close()

    def put(self, name: str, config: dict[str, str]) -> None:
        """Make or change a connector."""
        self._ask("PUT", f"/connectors/{name}/config", config)

    def restart(self, name: str) -> None:
        """Restart a connector and its task."""
        self._ask("POST", f"/connectors/{name}/restart?includeTasks=true", {})

    def wait_streaming(self, name: str, postgres: Postgres, timeout_s: float = 90) -> None:
        """Return when a connector reads the log of the database: its slot is in use.

        Raises:
            RuntimeError: Its task has failed, or it takes too long.
        """
        deadline = time.monotonic() + timeout_s
        with postgres.connect() as connection:
            while True:
                row = connection.execute("select active from pg_replication_slots where slot_name = %s", (slot_of(name),)).fetchone()
                if row is not None and row[0]:
                    return
                state = self._state(name)
                failed = [task.get("trace", "")[:2_000] for task in state.get("tasks", []) if task["state"] == "FAILED"]
                if failed or time.monotonic() > deadline:
                    raise RuntimeError(f"connector {name} does not stream: {failed or state}")
                time.sleep(0.2)

    def offsets(self, name: str) -> list[dict[str, Any]]:
        """Return the source offsets that a connector has stored: nothing before its first flush."""
        return [entry["offset"] for entry in self._ask("GET", f"/connectors/{name}/offsets")["offsets"] if entry["offset"]]

    def wait_stored(self, name: str, timeout_s: float = 90) -> None:
        """Return when a connector has stored an offset behind its snapshot.

        Killed before that, it takes the snapshot anew: what was changed meanwhile is in no record of its own then.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            found = self.offsets(name)
            if any("snapshot" not in offset or offset.get("snapshot_completed") for offset in found):
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"connector {name} stores no offset behind its snapshot: {found}")
            time.sleep(0.2)

    def log_tail(self) -> str:
        """Return the end of its log."""
        return self._service.log.read_text(errors="replace")[-4_000:]

    def _state(self, name: str) -> Any:
        try:
            return self._ask("GET", f"/connectors/{name}/status")
        except (urllib.error.URLError, RuntimeError) as error:
            return {"error": str(error)}

    def _answers(self) -> bool:
        try:
            self._ask("GET", "/connectors")
        except (urllib.error.URLError, OSError, RuntimeError):
            return False
        return True

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}{path}", data=data, method=method, headers={"Content-Type": "application/json"}
        )
        for attempt in range(60):
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    text = answer.read()
                    return json.loads(text) if text else None
            except urllib.error.HTTPError as error:
                if error.code != 409 or attempt == 59:  # 409: a rebalance is under way
                    raise RuntimeError(f"Connect: {method} {path}: {error.code} {error.read().decode(errors='replace')[:1_000]}") from error
                time.sleep(0.5)
        raise AssertionError("not reached")

    def _plugins(self) -> None:
        """Lay out the plugins; the converter names no service, so a jar that does stands beside it."""
        folder = self._service.folder / "plugins"
        (folder / "apicurio").mkdir(parents=True)
        debezium = archive(f"debezium-{DEBEZIUM}", f"io.debezium:debezium-connector-postgres:{DEBEZIUM}:tar.gz:plugin")
        (folder / "debezium").symlink_to(debezium)
        converter = jars(f"converter-{CONVERTER}", [f"io.apicurio:apicurio-registry-utils-converter:{CONVERTER}"])
        for jar in map(Path, converter.split(":")):
            if not jar.name.startswith(_PROVIDED):
                (folder / "apicurio" / jar.name).symlink_to(jar)
        with zipfile.ZipFile(folder / "apicurio" / "services.jar", "w") as services:
            services.writestr(
                "META-INF/services/org.apache.kafka.connect.storage.Converter", "io.apicurio.registry.utils.converter.AvroConverter\n"
            )


def slot_of(name: str) -> str:
    """Return the replication slot of a connector."""
    return re.sub(r"\W", "_", name)


def connector(
    postgres: Postgres, database: str, name: str, tables: list[str], *, registry: str | None = None, **more: str
) -> dict[str, str]:
    """Return the settings of a Debezium connector for tables ("public.users"); underscores in `more` are dots.

    Args:
        registry: Write Avro, with schemas in the Apicurio at this address; JSON with schemas if None.
    """
    config = {
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "plugin.name": "pgoutput",
        "tasks.max": "1",
        "database.hostname": "127.0.0.1",
        "database.port": str(postgres.port),
        "database.user": "postgres",
        "database.password": "unused",
        "database.dbname": database,
        "topic.prefix": name,
        "slot.name": slot_of(name),
        "publication.name": f"p_{slot_of(name)}",
        "publication.autocreate.mode": "filtered",
        "table.include.list": ",".join(tables),
        "skipped.operations": "none",
        "snapshot.mode": "initial",
        "provide.transaction.metadata": "true",
        "heartbeat.interval.ms": "1000",
        "topic.creation.default.partitions": "3",
        "topic.creation.default.replication.factor": "1",
    }
    for side in ("key", "value"):
        if registry is None:
            config |= {
                f"{side}.converter": "org.apache.kafka.connect.json.JsonConverter",
                f"{side}.converter.schemas.enable": "true" if side == "value" else "false",
            }
        else:
            settings = {
                "url": f"{registry}/apis/registry/v2",
                "auto-register": "true",
                "find-latest": "false",
                "headers.enabled": "false",
                "as-confluent": "true",
                "use-id": "contentId",
            }
            config[f"{side}.converter"] = "io.apicurio.registry.utils.converter.AvroConverter"
            config |= {f"{side}.converter.apicurio.registry.{setting}": value for setting, value in settings.items()}
    if registry is not None:
        config |= {"schema.name.adjustment.mode": "avro", "field.name.adjustment.mode": "avro"}
    return config | {setting.replace("_", "."): value for setting, value in more.items()}
