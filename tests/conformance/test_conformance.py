"""The conformance runner must pass our cases, and must notice when an expectation is not met: else it proves nothing."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.__main__ import main
from tests.conformance.__main__ import run as run_case

HERE = Path(__file__).parent
CASES: list[dict[str, Any]] = json.loads((HERE / "windows.json").read_text())["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_conformance_windows_case_passes(case: dict[str, Any]) -> None:
    assert run_case(case) is None


def a_result(case: dict[str, Any]) -> None:
    next(row for step in case["steps"] for row in step["emit"])["value"] += 1


def a_result_too_many(case: dict[str, Any]) -> None:
    case["steps"][0]["emit"].append({"key": "key1", "window": None, "value": 1})


def a_late_record(case: dict[str, Any]) -> None:
    next(row for step in case["steps"] for row in step.get("late", []))["ts"] += 1


def no_late_record(case: dict[str, Any]) -> None:
    for step in case["steps"]:
        step.pop("late", None)


def an_assignment(case: dict[str, Any]) -> None:
    case["expect"][0]["windows"][0][0] -= 1


def an_intersection(case: dict[str, Any]) -> None:
    case["expect"][0]["intersects"] = not case["expect"][0]["intersects"]


def a_merge(case: dict[str, Any]) -> None:
    case["expect_merges"].append({"sources": [[0, 1], [1, 2]], "into": [0, 2]})


def a_merged_flag(case: dict[str, Any]) -> None:
    case["steps"][-1]["merged"] = not case["steps"][-1]["merged"]


def a_valid_spec(case: dict[str, Any]) -> None:
    case["specs"][0] = {"assigner": "tumbling", "size_ms": 1, "offset_ms": 0}


def a_watermark(case: dict[str, Any]) -> None:
    case["steps"][-1]["watermark"] += 1


def an_idle_flag(case: dict[str, Any]) -> None:
    case["steps"][-1]["idle"] = not case["steps"][-1]["idle"]


def an_emission(case: dict[str, Any]) -> None:
    case["steps"][-1]["emit"].append({"watermark": 10**6})


def an_output(case: dict[str, Any]) -> None:
    case["steps"][-1]["out"]["watermark"] = 10**6


def an_output_flag(case: dict[str, Any]) -> None:
    case["steps"][-1]["out"]["idle"] ^= True


def a_pair(case: dict[str, Any]) -> None:
    next(row for step in case["steps"] for row in step.get("emit", []))["ts"] += 1


def a_buffer(case: dict[str, Any]) -> None:
    next(step for step in case["steps"] if "buffered_after" in step)["buffered_after"]["left"].append(99)


def an_error(case: dict[str, Any]) -> None:
    case["steps"][-1]["expect_error"] = "something else"


SPOILED: list[tuple[str, Callable[[dict[str, Any]], None]]] = [
    ("windowed_aggregation", a_result),
    ("windowed_aggregation", a_result_too_many),
    ("windowed_aggregation", a_late_record),
    ("windowed_aggregation", no_late_record),
    ("window_assignment", an_assignment),
    ("window_intersects", an_intersection),
    ("merge_windows", a_merge),
    ("incremental_merge", a_merged_flag),
    ("invalid_spec", a_valid_spec),
    ("watermark_generator", a_watermark),
    ("idleness_timer", an_idle_flag),
    ("watermark_valve", an_emission),
    ("combined_watermark", an_emission),
    ("watermark_multiplexer", an_output),
    ("watermark_multiplexer", an_output_flag),
    ("interval_join", a_pair),
    ("interval_join", a_buffer),
    ("interval_join", an_error),
]


@pytest.mark.parametrize(("kind", "spoil"), SPOILED)
def test_conformance_wrong_expectation_fails(kind: str, spoil: Callable[[dict[str, Any]], None]) -> None:
    spoiled = 0
    for case in CASES:
        if case["kind"] != kind:
            continue
        case = copy.deepcopy(case)
        try:
            spoil(case)
        except (StopIteration, KeyError):
            continue
        if case in CASES:
            continue  # nothing to spoil in this one
        spoiled += 1
        assert run_case(case) is not None, case["id"]
    assert spoiled


def files(folder: Path, cases: list[Any], differences: str = "") -> tuple[list[str], Path]:
    """Write a case file and a list of differences."""
    (folder / "cases.json").write_text(json.dumps({"_format": {}, "cases": cases}))
    (folder / "differences.toml").write_text("[differences]\n" + differences)
    return [str(folder / "cases.json")], folder / "differences.toml"


GOOD = {"id": "good", "kind": "window_intersects", "expect": [{"a": [0, 1], "b": [1, 2], "intersects": True}]}
BAD = {"id": "bad", "kind": "window_intersects", "expect": [{"a": [0, 1], "b": [1, 2], "intersects": False}]}
UNKNOWN = {"id": "unknown", "kind": "crystal_ball"}


def test_conformance_main_counts_and_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(*files(tmp_path, [GOOD, BAD, UNKNOWN, {"id": "broken", "kind": "merge_windows"}])) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:-1]] == ["FAILED bad", "FAILED unknown", "FAILED broken"]
    assert lines[-1] == "1 passed, 3 failed"


def test_conformance_main_all_good_gives_status_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(*files(tmp_path, [GOOD])) == 0
    assert capsys.readouterr().out == "1 passed, 0 failed\n"


def test_conformance_main_differences_are_counted_apart_and_limited(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(*files(tmp_path, [GOOD, BAD], '"bad" = "on purpose"\n')) == 0
    assert capsys.readouterr().out == "1 differ on purpose\n1 passed, 0 failed\n"
    assert main(*files(tmp_path, [GOOD], "".join(f'"case {number}" = "why"\n' for number in range(6)))) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "1 passed, 0 failed"


def test_conformance_main_without_files_says_how(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err
