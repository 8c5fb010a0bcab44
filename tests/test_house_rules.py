"""The repository keeps the house rules, and each rule catches what it is for."""

import os
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from tests import house_rules
from tests.house_rules import RULES, Source

ROOT = Path(__file__).resolve().parent.parent
MADE = {"__pycache__", "build", "dist", "var"}
TEXT = {"", ".cfg", ".json", ".jsonl", ".md", ".py", ".sh", ".sql", ".toml", ".txt", ".yaml", ".yml"}
OWN = {"tests/house_rules.py", "tests/test_house_rules.py"}
"""These name what is forbidden."""


@cache
def texts() -> list[Source]:
    """Return the text files that people wrote, in a fixed order; no tree is kept of them."""
    found = []
    for folder, inner, files in os.walk(ROOT):
        inner[:] = sorted(name for name in inner if name not in MADE and (name == ".ci" or not name.startswith(".")))
        place = Path(folder)
        inner[:] = [name for name in inner if not name.endswith(".egg-info")]
        paths = [place / name for name in sorted(files) if name != ".git" and (place / name).suffix in TEXT]
        found += [Source(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in paths]
    return [source for source in found if source.path not in OWN]


def test_repository_is_clean() -> None:
    """One test for all rules: a file is read once and its tree let go, since together the trees are a gigabyte."""
    broken, modules = [], 0
    for text in texts():
        source = replace(text)
        modules += source.path.endswith(".py")
        for rule in RULES if source.path.endswith(".py") else (house_rules.nothing_from_outside,):
            broken += [f"{rule.__name__}: {line}" for line in rule(source)]
    assert modules > 50, "the files were not found"
    assert not broken, "\n" + "\n".join(broken)


BAD = [
    (house_rules.import_direction, "state/x.py", "import engine.block"),
    (house_rules.import_direction, "engine/x.py", "from cdc import Change"),
    (house_rules.import_direction, "cdc/x.py", "def f():\n    import agents.revenue"),
    (house_rules.import_direction, "engine/x.py", "from engine.runtime.app import App"),
    (house_rules.import_direction, "engine/operators/x.py", "from engine import runtime"),
    (house_rules.import_direction, "engine/runtime/x.py", "from tests.kafka_server import KafkaServer"),
    (house_rules.one_door, "engine/runtime/x.py", "from aiokafka.errors import KafkaError"),
    (house_rules.one_door, "state/x.py", "import rocksdict"),
    (house_rules.one_door, "engine/x.py", "import numpy as np"),
    (house_rules.pure_core, "engine/x.py", "import time"),
    (house_rules.pure_core, "state/x.py", "from threading import Lock"),
    (house_rules.pure_core, "state/rocks.py", "import random"),
    (house_rules.pure_core, "engine/x.py", "from os import environ"),
    (house_rules.pure_core, "engine/x.py", "async def f() -> None: ..."),
    (house_rules.pure_core, "engine/x.py", "async def f(g):\n    await g()"),
    (house_rules.pure_core, "engine/x.py", "import datetime\nnow = datetime.datetime.now()"),
    (house_rules.pure_core, "engine/x.py", "from datetime import datetime\nnow = datetime.utcnow()"),
    (house_rules.pure_core, "engine/x.py", "import uuid\nid = uuid.uuid4()"),
    (house_rules.pure_core, "engine/x.py", "import os\nhome = os.environ['HOME']"),
    (house_rules.pure_core, "engine/x.py", "text = open('x').read()"),
    (house_rules.pure_core, "state/x.py", "import shutil"),
    (house_rules.pure_core, "state/x.py", "from pathlib import Path\nPath('a').mkdir()"),
    (house_rules.no_hash, "agents/x.py", "partition = hash('key') % 12"),
    (house_rules.no_pickle, "tests/x.py", "from pickle import dumps"),
    (house_rules.sizes, "engine/x.py", "a = 1\n" * 401),
    (house_rules.sizes, "engine/x.py", "def f():\n" + "    a = 1\n" * 60),
    (house_rules.names, "engine/utils.py", ""),
    (house_rules.names, "cdc/helpers/x.py", ""),
    (house_rules.names, "state/base.py", ""),
    (house_rules.docstrings, "engine/x.py", "a = 1"),
    (house_rules.honest_tests, "tests/test_x.py", "from unittest.mock import Mock"),
    (house_rules.honest_tests, "tests/test_x.py", "import time\ntime.sleep(1)"),
    (house_rules.nothing_from_outside, "README.md", "see /home/ann/streamforge"),
    (house_rules.nothing_from_outside, "Makefile", "pip install --index-" + "url=https://example.org"),
]


@pytest.mark.parametrize(("rule", "path", "text"), BAD, ids=lambda value: value if isinstance(value, str) and "\n" not in value else None)
def test_rule_bad_source_is_caught(rule: Callable[[Source], Iterator[str]], path: str, text: str) -> None:
    found = list(rule(Source(path, text)))
    assert found and found[0].startswith(path)


GOOD = [
    ("engine/x.py", '"""Windows."""\nimport msgspec\nfrom state.overlay import TaskState\n'),
    ("engine/x.py", '"""Types."""\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from engine.runtime.app import App\n'),
    ("engine/runtime/x.py", '"""Shell."""\nimport asyncio, time, os\nhome = os.environ\nasync def f(): await asyncio.sleep(1)\n'),
    ("engine/operators/base.py", '"""Says time.time() and hash(key) only in words; datetime.now() too."""\n'),
    ("engine/x.py", '"""Keys."""\nclass Key:\n    def __hash__(self): return hash(self.a)\n'),
    ("state/rocks.py", '"""Files."""\nimport rocksdict, threading, time\nopen("x")\n'),
    ("tests/test_x.py", "import aiokafka, rocksdict\nimport agents\n"),
    ("engine/empty/__init__.py", ""),
    ("engine/x.py", '"""Long."""\ndef f():\n' + "    a = 1\n" * 59),
]


@pytest.mark.parametrize(("path", "text"), GOOD)
def test_rules_good_source_passes(path: str, text: str) -> None:
    assert [line for rule in RULES for line in rule(Source(path, text))] == []


def test_rules_all_have_a_bad_source() -> None:
    assert {rule for rule, _, _ in BAD} == set(RULES)


def test_exceptions_are_still_needed() -> None:
    """An exception of the size rule that no longer exceeds the limit is removed."""
    by_path = {source.path: source for source in texts()}
    for path in house_rules.LONG_MODULES:
        assert by_path[path].text.count("\n") > house_rules.MODULE_LINES_MAX
    for place in house_rules.LONG_FUNCTIONS:
        assert place.partition(":")[0] in by_path


@pytest.mark.parametrize("lock", ["requirements.txt", "requirements-dev.txt"])
def test_lock_holds_every_dependency_with_hashes(lock: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = list(project["dependencies"])
    if lock == "requirements-dev.txt":
        wanted += project["optional-dependencies"]["dev"] + project["optional-dependencies"]["avro"]
    pins = re.findall(
        r"^([\w.-]+)==(\S+)((?:.*\\\n)(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", (ROOT / lock).read_text(), re.MULTILINE
    )
    named = {name for name, _, _ in pins}
    assert {re.match(r"[\w.-]+", requirement)[0] for requirement in wanted} <= named  # type: ignore[index]
    assert len(named) == sum(1 for line in (ROOT / lock).read_text().splitlines() if "==" in line.partition(";")[0]), "a pin has no hash"
