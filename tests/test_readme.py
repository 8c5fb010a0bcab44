"""README.md says what is so: its programs and tests run, its tables and drawings are what the engine gives."""

import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine import App, Sink, Stream, Struct, agg, bounded, cep, triggers, windows
from engine.runtime.metrics import Metrics
from engine.runtime.options import PREFIX, read_options
from engine.testing import TestDriver
from state.changelog import judge
from state.store import Position

TEXT = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")
FILES: dict[str, str] = dict(re.findall(r"^```\w+\n# (\S+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL))
"""The examples that have a name in their first line, by that name."""


class Number(Struct, frozen=True):
    key: str
    x: int | None
    ts: int


def rows(begin: str) -> list[list[str]]:
    """Return the cells of the table rows that begin with a text."""
    lines = [line for line in TEXT.splitlines() if line.startswith(f"| {begin}")]
    assert lines, f"README.md has no table rows that begin with {begin}"
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def codes(cell: str) -> list[str]:
    """Return what stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def evaluate(expression: str) -> Any:
    names = {"windows": windows, "triggers": triggers, "agg": agg, "add": lambda total, value: total + (value.x or 0)}
    return eval(expression, {**names, "is_130": lambda value: value.ts == 130_000})


def driver_of(declare: Any) -> TestDriver:
    app = App("readme", broker="memory://", partitions=1)
    numbers = app.source("numbers", Number, key="key", time="ts", watermark=bounded("0s", idle=None))
    return TestDriver(app.pipeline(numbers, name="table")(declare))


def run(command: str, folder: Path) -> str:
    """Run a line in a folder, with the environment's programs first on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(command, shell=True, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder with the files of the examples, to import from too."""
    for name, content in FILES.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    known = set(sys.modules)
    sys.path.insert(0, str(tmp_path))
    yield tmp_path
    sys.path.remove(str(tmp_path))
    for name in {Path(name).stem for name in FILES} & (set(sys.modules) - known):
        del sys.modules[name]


def test_readme_first_pipeline_gives_what_is_said(folder: Path) -> None:
    run(FILES["shell"], folder)
    results = [json.loads(line)["value"] for line in (folder / "out" / "revenue.jsonl").read_text().splitlines()]
    assert sorted((row["key"], row["revenue_cents"]) for row in results) == [("EUR", 250), ("EUR", 600), ("USD", 900)]


def test_readme_examples_all_have_a_name_and_pass(folder: Path) -> None:
    assert len(re.findall(r"^```python$", TEXT, re.MULTILINE)) == sum(name.endswith(".py") for name in FILES)
    tests = sum(len(re.findall(r"^(?:async )?def test_", content, re.MULTILINE)) for content in FILES.values())
    assert f"\n{tests} passed" in run("python -m pytest -q -p no:asyncio", folder)


def test_readme_patterns_are_drawn_as_they_are(folder: Path) -> None:
    drawn = re.findall(r"^```python\n# (test_pattern_\w+\.py)\n[^`]*^```\n\n```mermaid\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert len(drawn) == 5
    for name, drawing in drawn:
        assert cep.draw(runpy.run_path(str(folder / name))["pattern"]) == drawing, name


@pytest.mark.parametrize(("window", "expected"), [(codes(row[0])[0], row[2]) for row in rows("`windows.")])
def test_readme_window_gives_what_the_table_says(window: str, expected: str) -> None:
    def declare(numbers: Stream[str, Number]) -> Sink:
        return numbers.window(evaluate(window)).aggregate(n=agg.count()).to("results")

    with driver_of(declare) as driver:
        for second in (0, 50, 70, 130):
            driver.send("numbers", Number("a", second, ts=second * 1_000))
        driver.finish()
        values = [record.value for record in driver.read("results")]
    spans = [
        f"{value['window_start'] / 1_000:g} to {value['window_end'] / 1_000:g}: " if "window_start" in value else "" for value in values
    ]
    assert ", ".join(span + str(value["n"]) for span, value in zip(spans, values, strict=True)) == expected


@pytest.mark.parametrize(("trigger", "expected"), [(codes(row[0])[0], row[2]) for row in [*rows("`None`"), *rows("`triggers.")]])
def test_readme_trigger_gives_what_the_table_says(trigger: str, expected: str) -> None:
    def declare(numbers: Stream[str, Number]) -> Sink:
        minutes = numbers.window(windows.tumbling("1m"), lateness="1m", trigger=evaluate(trigger))
        return minutes.aggregate(n=agg.count()).to("results")

    with driver_of(declare) as driver:
        for second in (10, 20, 30, 70, 40):
            driver.send("numbers", Number("a", second, ts=second * 1_000))
            driver.advance("20s")
        driver.finish()
        values = [record.value for record in driver.read("results")]
    assert ", ".join(str(value["n"]) for value in values if value["window_start"] == 0) == expected


def test_readme_aggregates_are_all_there_and_give_what_the_table_says() -> None:
    table = {code: result for row in rows("`agg.") for code, result in zip(codes(row[0]), _results(row[1]), strict=True)}
    assert {code.partition("(")[0] for code in table} == {f"agg.{name}" for name in agg.__all__ if name.islower()}
    aggregates = {f"a{number}": evaluate(code) for number, code in enumerate(table)}
    with driver_of(lambda numbers: numbers.aggregate(**aggregates).to("totals")) as driver:
        for ts, x in enumerate((5, 2, 9, 2, None)):
            driver.send("numbers", Number("a", x, ts))
        (total,) = driver.read("totals")
    assert {code: str(total.value[name]) for name, code in zip(aggregates, table, strict=True)} == table


def _results(cell: str) -> list[str]:
    return [cell] if cell.startswith("[") else cell.split(", ")


def test_readme_test_driver_methods_exist() -> None:
    table = TEXT.partition("| Method | Does |\n|---|---|\n")[2].partition("\n\n")[0]
    named = [code.partition("(")[0] for line in table.splitlines() for code in codes(line.split(" | ")[0])]
    assert len(named) == 12
    assert all(callable(getattr(TestDriver, name, None)) for name in named)


def test_readme_settings_are_those_of_an_app_with_their_defaults() -> None:
    names = ["broker", "state_dir", "partitions", "commit_interval", "checkpoint_interval", "on_error"]
    names += ["max_ahead", "max_skew", "grace", "standbys"]
    said = {name: codes(rows(f"`{name}`")[0][1])[0] for name in names}
    given = {name: eval(default) for name, default in said.items()} | {"broker": "memory://"}
    assert read_options("a", given, (), {}) == read_options("a", {"broker": "memory://"}, (), {})
    in_environment = {PREFIX + name.upper(): str(value).lower() for name, value in given.items()}
    assert read_options("a", {"broker": "memory://other", "partitions": 7}, (), in_environment) == read_options("a", given, (), {})


def test_readme_metrics_exist() -> None:
    metrics = Metrics()
    metrics.task(0)
    there = metrics.render().decode()
    for (code, *_), _ in ((codes(row[0]), row) for row in rows("`streamforge_")):
        assert f"# TYPE {code} " in there


def test_readme_verdicts_on_local_state_are_those_of_a_restore() -> None:
    day_ms, ours = 86_400_000, b"ours"
    now_ms = 10 * day_ms
    positions = [Position(), Position(b"other", 5, now_ms), Position(ours, 9, 0), Position(ours, 5, now_ms), Position(ours, 5, 0)]
    positions.append(Position(ours, 12, now_ms))
    reasons = [judge(position, identity=ours, begin=0, end=9, now_ms=now_ms).reason for position in positions]
    said = [codes(row[0])[0] for row in rows("`is ") if "new and empty" not in row[0]]
    assert len(said) == len(reasons)
    for reason in reasons:
        assert any(re.sub(r"\d+", "N", reason).startswith(text) for text in said), reason
