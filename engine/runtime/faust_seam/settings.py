"""The settings that Faust gets."""

from typing import Any

from engine.runtime.faust_seam.side_transport import NoTables
from engine.runtime.faust_seam.structs import StructRegistry
from engine.runtime.options import Options


def for_faust(options: Options, rest: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that Faust gets: what was given, our defaults, and what is settled here."""
    defaults = {
        "env_prefix": "STREAMFORGE_",
        "web_bind": "127.0.0.1",
        "broker_session_timeout": 10.0,
        "broker_rebalance_timeout": 15.0,
        "TableManager": NoTables,
        "Serializers": StructRegistry,
    }
    settled = {"datadir": str(options.state_dir), "topic_partitions": options.partitions, "topic_disable_leader": True}
    return defaults | rest | settled
