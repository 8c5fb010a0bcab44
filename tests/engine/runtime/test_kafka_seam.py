"""aiokafka still has every private name that the Kafka transport uses; no broker needed."""

import ast
import importlib
import inspect
from pathlib import Path

import aiokafka
import pytest

from engine.runtime.transport import kafka
from engine.runtime.transport.kafka.seam import SEAM, Private

_PACKAGE = Path(kafka.__file__).parent


def _owner(private: Private) -> object:
    module, _, name = private.owner.partition(":")
    found = importlib.import_module(module)
    return getattr(found, name) if name else found


def _has(owner: object, name: str) -> bool:
    """Whether a class has the attribute, or its code sets it on `self`."""
    return hasattr(owner, name) or (inspect.isclass(owner) and f"self.{name} =" in inspect.getsource(owner).replace(": ", " = "))


@pytest.mark.parametrize("private", SEAM, ids=lambda private: f"{private.owner}.{private.name}")
def test_aiokafka_private_name_is_as_the_transport_uses_it(private: Private) -> None:
    owner = _owner(private)
    changed = f"aiokafka {aiokafka.__version__} changed {private.owner}.{private.name}"
    assert _has(owner, private.name), f"{changed}: it is gone"
    if private.parameters is not None:
        found = [name for name in inspect.signature(getattr(owner, private.name)).parameters if name != "self"]
        assert found[: len(private.parameters)] == list(private.parameters), f"{changed}: its parameters are {found}"


def test_seam_list_names_every_underscored_attribute_that_the_package_reads_of_others() -> None:
    listed = {private.name for private in SEAM}
    used: set[str] = set()
    own: set[str] = set()
    for path in _PACKAGE.glob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                own.add(node.name)
            elif isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
                on_self = isinstance(node.value, ast.Name) and node.value.id == "self"
                (own if on_self and isinstance(node.ctx, ast.Store) else used).add(node.attr)
    assert used - own <= listed, "touched, but not in seam.SEAM"
    assert "_proc_fetch_request" in used, "the search finds nothing"


def test_aiokafka_is_imported_in_this_package_only() -> None:
    root = _PACKAGE.parents[3]
    offenders = [
        path.relative_to(root)
        for folder in ("engine", "state", "cdc", "agents")
        for path in (root / folder).rglob("*.py")
        if _PACKAGE not in path.parents and any(line.lstrip().startswith(("import aiokafka", "from aiokafka")) for line in path.open())
    ]
    assert offenders == []
