"""The rules that the whole code base keeps, each a function from a source file to what it breaks.

A rule reads the syntax tree, so that a comment or a string never trips it. `tests/test_house_rules.py` runs all of them over the
repository, and shows for each that it catches what it is for.
"""

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

LAYERS = ("state", "engine", "cdc", "agents", "batch", "deploy")
"""Import packages from the bottom up: each may import itself and those before it."""

DOORS = {
    "aiokafka": ("engine/runtime/transport/kafka/",),
    "click": ("engine/runtime/cli/", "cdc/", "agents/", "batch/", "deploy/"),
    "fastavro": ("cdc/",),
    "duckdb": ("state/parquet.py", "cdc/database_duckdb.py"),
    "faust": ("engine/runtime/app.py", "engine/runtime/faust_seam/"),
    "fsspec": ("state/remote.py",),
    "google": ("cdc/protobuf_",),
    "httpx": ("cdc/",),
    "mode": ("engine/runtime/app.py", "engine/runtime/faust_seam/"),
    "msgspec": ("",),
    "prometheus_client": ("engine/runtime/metrics.py",),
    "psycopg": ("cdc/database_postgres.py",),
    "pyspark": ("batch/",),
    "pytest": ("engine/testing/",),
    "rich": ("engine/runtime/cli/", "agents/"),
    "rocksdict": ("state/rocks.py",),
    "sortedcontainers": ("state/", "engine/"),
    "sqlglot": ("engine/cep/recognize/sql.py",),
    "uvloop": ("engine/runtime/",),
    "yarl": ("engine/runtime/app.py", "engine/runtime/faust_seam/"),
}
"""A third-party library and where it may be imported, so that a new version of it touches one place. Tests may import all."""

SHELL = ("engine/runtime/", "engine/testing/", "engine/__main__.py")
"""What of the engine may wait, and read the clock and the environment. The rest, and state/, is the core."""

IMPURE_MODULES = {
    "asyncio", "concurrent", "http", "multiprocessing", "random", "secrets", "selectors", "signal", "socket", "subprocess", "urllib",
}  # fmt: skip
IMPURE_CALLS = {
    "date.today", "datetime.now", "datetime.today", "datetime.utcnow", "os.environ", "os.environb", "os.getenv", "os.urandom", "uuid.uuid1",
    "uuid.uuid4",
}  # fmt: skip
FILE_MODULES = {"fcntl", "shutil", "tempfile", "threading", "time"}
FILE_METHODS = {"iterdir", "mkdir", "read_bytes", "read_text", "rename", "rmdir", "touch", "unlink", "write_bytes", "write_text"}
STORES = ("state/rocks", "state/checkpoint", "state/parquet", "state/remote", "state/savepoint")
"""Modules of the core that keep state in files: they may touch them, wait for a lock on them, and be called from a thread."""

VAGUE_NAMES = {"base", "common", "helpers", "misc", "util", "utils"}
VAGUE_ALLOWED = {"engine/operators/base.py"}

MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
LONG_MODULES: dict[str, str] = {}
"""Modules beyond the limit, each with the reason."""
LONG_FUNCTIONS: dict[str, str] = {}
"""Functions beyond the limit (`path:name`), each with the reason."""

_OUTSIDE = re.compile(
    r"(?<![\w.}])/(?:work|root|Users|home)/\w"  # the paths of one machine
    r"|\.\./shared\b|\bindex[-_]ur[l][= ]+\S*:|pypi\.org/simple|pythonhosted\.org|registry\.npmjs|repo\d?\.maven|proxy\.golang"
)


@dataclass(frozen=True)
class Source:
    """One file: its path from the root of the repository, with forward slashes, and its text."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree."""
        return ast.parse(self.text, self.path)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """All nodes of the tree."""
        return list(ast.walk(self.tree))

    @property
    def package(self) -> str:
        """The first folder of the path, "" for a file in the root."""
        return self.path.partition("/")[0] if "/" in self.path else ""

    @property
    def is_core(self) -> bool:
        """Whether it must be a function of what it is given."""
        return self.package in ("state", "engine") and not self.path.startswith(SHELL)

    @property
    def is_test(self) -> bool:
        """Whether it belongs to the tests."""
        return self.package == "tests"

    def at(self, node: ast.AST, what: str) -> str:
        """Return one line that names the place and what is wrong there."""
        return f"{self.path}:{getattr(node, 'lineno', 1)}: {what}"


def import_direction(source: Source) -> Iterator[str]:
    """Imports go down the layers, never up; the core does not import its shell; nothing imports the tests but tests."""
    if source.is_test:
        return
    rank = LAYERS.index(source.package) if source.package in LAYERS else len(LAYERS)
    for node, name in _imports(source):
        top = name.partition(".")[0]
        if top == "tests":
            yield source.at(node, f"imports {name}: only tests may")
        elif top in LAYERS and LAYERS.index(top) > rank:
            yield source.at(node, f"imports {name}: {source.package} stands below {top}")
        elif source.is_core and name.startswith(("engine.runtime", "engine.testing")) and not _for_types(source, node):
            yield source.at(node, f"imports {name}: the core does not know its shell")


def one_door(source: Source) -> Iterator[str]:
    """A third-party library is imported where `DOORS` says, nowhere else; one that is not listed, nowhere."""
    if source.is_test:
        return
    for node, name in _imports(source):
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names or top in LAYERS or top == "tests":
            continue
        if not any(source.path.startswith(door) for door in DOORS.get(top, ())):
            yield source.at(node, f"imports {name}: allowed in {', '.join(DOORS.get(top, ())) or 'no module yet (list it in DOORS)'}")


def pure_core(source: Source) -> Iterator[str]:
    """The core neither waits nor reads the clock, randomness, the environment or files, and has no threads."""
    if not source.is_core:
        return
    files = source.path.startswith(STORES)
    for node, name in _imports(source):
        top = name.partition(".")[0]
        if (top in IMPURE_MODULES | FILE_MODULES or name in IMPURE_CALLS) and not (files and top in FILE_MODULES):
            yield source.at(node, f"imports {name} in the core")
    for node in source.nodes:
        if isinstance(node, ast.Await | ast.AsyncFor | ast.AsyncWith | ast.AsyncFunctionDef):
            yield source.at(node, "waits (async) in the core")
        elif isinstance(node, ast.Attribute) and ".".join(_dotted(node).split(".")[-2:]) in IMPURE_CALLS:
            yield source.at(node, f"uses {_dotted(node)} in the core")
        elif (_calls(node, "open") or _calls_method(node, FILE_METHODS)) and not files:
            yield source.at(node, "touches a file in the core")


def no_hash(source: Source) -> Iterator[str]:
    """`hash()` differs from process to process: it places no key. A class's own `__hash__` may use it."""
    allowed = {inner for node in source.nodes if isinstance(node, ast.FunctionDef) and node.name == "__hash__" for inner in ast.walk(node)}
    for node in source.nodes:
        if _calls(node, "hash") and node not in allowed:
            yield source.at(node, "calls hash(), which differs from process to process")


def no_pickle(source: Source) -> Iterator[str]:
    """Nothing is pickled: what is stored has a format with a version, and reading it runs no code."""
    for node, name in _imports(source):
        if name.partition(".")[0] in {"pickle", "marshal", "shelve", "dill", "cloudpickle"}:
            yield source.at(node, f"imports {name}: formats are explicit and carry a version")


def sizes(source: Source) -> Iterator[str]:
    """A module holds one concept, a function one step; beyond the limits they are split."""
    if source.is_test:
        return
    lines = source.text.count("\n")
    if lines > MODULE_LINES_MAX and source.path not in LONG_MODULES:
        yield f"{source.path}: {lines} lines, at most {MODULE_LINES_MAX}"
    for node in source.nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            length = node.end_lineno - node.lineno + 1
            if length > FUNCTION_LINES_MAX and f"{source.path}:{node.name}" not in LONG_FUNCTIONS:
                yield source.at(node, f"{node.name} has {length} lines, at most {FUNCTION_LINES_MAX}")


def names(source: Source) -> Iterator[str]:
    """A module is named for what it holds."""
    for part in source.path.removesuffix(".py").split("/"):
        if part in VAGUE_NAMES and source.path not in VAGUE_ALLOWED:
            yield f"{source.path}: {part!r} does not say what it holds"


def docstrings(source: Source) -> Iterator[str]:
    """Every module that is not a test says what it is, an empty `__init__` of a folder aside."""
    if not source.is_test and source.tree.body and ast.get_docstring(source.tree) is None:
        yield f"{source.path}: no docstring that says what the module is"


def honest_tests(source: Source) -> Iterator[str]:
    """Tests do not sleep, and do not replace our own code by mocks."""
    if not source.is_test or not source.path.rpartition("/")[2].startswith("test_"):
        return
    for node, name in _imports(source):
        if name.startswith(("unittest.mock", "mock")):
            yield source.at(node, "mocks: drive the real thing")
    for node in source.nodes:
        if isinstance(node, ast.Attribute) and _dotted(node) == "time.sleep":
            yield source.at(node, "sleeps: wait for what must happen, with a limit")


def nothing_from_outside(source: Source) -> Iterator[str]:
    """No path of one machine and no address of a package index stands in the repository (any text file)."""
    for number, line in enumerate(source.text.splitlines(), 1):
        found = _OUTSIDE.search(line)
        if found is not None:
            yield f"{source.path}:{number}: {found.group()!r} is of one machine or an index"


RULES = (
    import_direction, one_door, pure_core, no_hash, no_pickle, sizes, names, docstrings, honest_tests, nothing_from_outside
)  # fmt: skip
"""All rules for Python files; the last one holds for every text file."""


def _imports(source: Source) -> Iterator[tuple[ast.AST, str]]:
    """Yield every absolute import as (node, dotted name); `from a import b` gives "a" and "a.b"."""
    for node in source.nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            precise = [name for name in inner if name in IMPURE_CALLS or name.startswith(("engine.runtime", "engine.testing"))]
            yield from ((node, name) for name in precise or [node.module])


def _for_types(source: Source, node: ast.AST) -> bool:
    """Return whether an import stands under `if TYPE_CHECKING:`, which runs never."""
    for branch in source.nodes:
        if isinstance(branch, ast.If) and isinstance(branch.test, ast.Name) and branch.test.id == "TYPE_CHECKING":
            return any(inner is node for statement in branch.body for inner in ast.walk(statement))
    return False


def _dotted(node: ast.AST) -> str:
    """Return `a.b.c` of an attribute chain, "" where it starts with something else than a name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        left = _dotted(node.value)
        return f"{left}.{node.attr}" if left else ""
    return ""


def _calls(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def _calls_method(node: ast.AST, methods: set[str]) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in methods
