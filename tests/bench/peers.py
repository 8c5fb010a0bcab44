"""Others on the same orders, where they are installed: `make bench ARGS="--peers confluent,quix --peers-python /venv/bin/python"`.

Each is a module that does A0; its results are compared with the oracle's like ours. One whose library the interpreter has not is
left out, which is said.
"""

import subprocess
from dataclasses import dataclass

from tests.bench.measured import ROOT
from tests.bench.throughput import Child, Rate, compare, run_checked, settings
from tests.bench.workload import Answers


@dataclass(frozen=True, slots=True)
class Peer:
    """A module of the bench that needs a library.

    Attributes:
        orders_max: So many orders at most: what takes minutes for more.
        about: What is to be known beside its figures.
    """

    module: str
    library: str
    about: str
    orders_max: int


PEERS = {
    "confluent": Peer("tests.bench.peer_confluent", "confluent_kafka", "by hand, exactly once, windows in memory only", 10_000_000),
    "quix": Peer("tests.bench.peer_quix", "quixstreams", "exactly once, RocksDB", 300_000),
}


def has_library(peer: Peer, python: str) -> bool:
    """Return whether an interpreter can run a peer."""
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({peer.library!r}) is None)"
    return subprocess.run([python, "-c", code], cwd=ROOT, check=False, capture_output=True).returncode == 0


async def run_peer(
    bootstrap: str, topic: str, name: str, number: int, want: Answers, core: int | None, timeout_s: float, python: str
) -> Rate:
    """Measure a peer in A0."""
    environ = settings(bootstrap, topic, "A0", "1s")
    child = Child(PEERS[name].module, python)
    rate = await run_checked(environ, number, len(want), lambda values: compare("A0", values, want), core, timeout_s, child)
    rate.job = name
    return rate


__all__ = ["PEERS", "Peer", "has_library", "run_peer"]
