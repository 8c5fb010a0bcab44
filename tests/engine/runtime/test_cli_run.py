"""`streamforge run`: files in, files out, a summary; and one sentence for everything that a person can mend."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from engine.runtime.cli import main

pytestmark = pytest.mark.thorough

APP = """
from engine import App, Sink, Stream, Struct, agg, bounded, windows

class Click(Struct):
    user: str
    page: str
    ts: int

app = App("clicks", broker="kafka://nobody.invalid:9", partitions=4{options})
clicks = app.source("clicks", Click, key="user", time="ts", watermark=bounded("0s"))

@app.pipeline(clicks)
def counts(clicks: Stream[str, Click]) -> Sink:
    return clicks.map({function}).window(windows.tumbling("1m"), late_to="late").aggregate(n=agg.count()).to("counts")
"""


def write_app(folder: Path, *, function: str = "lambda click: click", options: str = "") -> str:
    path = folder / "clicks_app.py"
    path.write_text(APP.format(function=function, options=options))
    return str(path)


def write_lines(path: Path, values: Sequence[object], **fields: object) -> Path:
    path.write_text("".join(json.dumps({"value": value, **fields}) + "\n" for value in values))
    return path


def click(user: str, ts: int) -> Mapping[str, object]:
    return {"user": user, "page": "/", "ts": ts}


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def streamforge(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def assert_one_sentence(result: Result, *parts: str) -> None:
    assert result.exit_code != 0
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1, result.stderr
    for part in parts:
        assert part in result.stderr


def test_run_over_a_file_writes_results_by_partition_and_offset_and_sums_up(tmp_path: Path) -> None:
    clicks = [click(f"user-{number % 7}", 1_000 * number) for number in range(200)]
    source = write_lines(tmp_path / "in.jsonl", clicks)
    result = streamforge("run", write_app(tmp_path), "--input", f"clicks={source}", "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    results = read(tmp_path / "out" / "counts.jsonl")
    assert sum(record["value"]["n"] for record in results) == 200
    assert [(record["partition"], record["offset"]) for record in results] == sorted(
        (record["partition"], record["offset"]) for record in results
    )
    assert {record["key"] for record in results} == {f"user-{number}" for number in range(7)}
    assert read(tmp_path / "out" / "late.jsonl") == []
    assert not (tmp_path / "out" / "clicks-dlq.jsonl").exists()
    assert f"200 records in, {len(results)} out, 0 late, 0 dead letters" in result.stdout


def test_run_with_json_prints_only_json(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", [click("ann", 0), click("ann", 60_000), click("ann", 1)])
    result = streamforge("run", write_app(tmp_path), "--input", f"clicks={source}", "--output", tmp_path / "out", "--json")
    summary = json.loads(result.stdout)
    assert result.stderr == ""
    assert (summary["records_in"], summary["records_out"]) == ({"clicks": 3}, {"counts": 2, "late": 1})
    assert (summary["late"], summary["dead_letters"], summary["bad_lines"]) == (1, 0, [])
    assert summary["seconds"] > 0


def test_run_with_several_files_of_a_topic_reads_them_one_after_the_other(tmp_path: Path) -> None:
    first, second = write_lines(tmp_path / "1.jsonl", [click("ann", 60_000)]), write_lines(tmp_path / "2.jsonl", [click("ann", 0)])
    result = streamforge(
        "run", write_app(tmp_path), "--input", f"clicks={first}", "--input", f"clicks={second}", "--output", tmp_path / "out"
    )
    assert result.exit_code == 0, result.output
    assert [record["value"]["ts"] for record in read(tmp_path / "out" / "late.jsonl")] == [0]


@pytest.mark.thorough
def test_run_of_its_own_output_reads_it_again(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", [click("ann", 0), click("ann", 60_000), click("ann", 1)])
    app = write_app(tmp_path)
    streamforge("run", app, "--input", f"clicks={source}", "--output", tmp_path / "out")
    result = streamforge("run", app, "--input", f"clicks={tmp_path / 'out' / 'late.jsonl'}", "--output", tmp_path / "again")
    assert result.exit_code == 0, result.output
    assert [record["value"]["n"] for record in read(tmp_path / "again" / "counts.jsonl")] == [1]


def test_run_with_bad_records_and_lines_sends_them_to_the_dead_letters_and_counts_them(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", [click("ann", 0), {"user": "ann"}, "text"])
    with source.open("a") as file:
        file.write('{"value": {"user"\n\n{"key": "ann"}\n{"value_text": "{", "key": "ann", "headers": {"trace": "t-1"}}\n')
    result = streamforge("run", write_app(tmp_path), "--input", f"clicks={source}", "--output", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert (summary["records_in"], summary["dead_letters"]) == ({"clicks": 4}, 5)
    assert [bad.split(": ")[0] for bad in summary["bad_lines"]] == [f"{source}, line 4", f"{source}, line 6"]
    assert "2 lines are not a record" in result.stderr
    letters = read(tmp_path / "out" / "clicks-dlq.jsonl")
    lines = {record["headers"]["line"]: record for record in letters if "line" in record["headers"]}
    assert lines["4"]["value_text"] == '{"value": {"user"'
    assert lines["6"]["value"] == {"key": "ann"}
    assert {record["headers"]["file"] for record in letters if "line" in record["headers"]} == {str(source)}
    refused = [record for record in letters if "trace" in record["headers"]]
    assert refused[0]["value_text"] == "{" and refused[0]["headers"]["topic"] == "clicks"


def test_run_with_a_function_that_raises_keeps_the_other_records(tmp_path: Path) -> None:
    app = write_app(tmp_path, function="lambda click: 1 / (click.ts - 1) and click")
    source = write_lines(tmp_path / "in.jsonl", [click("ann", 0), click("ann", 1), click("ann", 2)])
    result = streamforge("run", app, "--input", f"clicks={source}", "--output", tmp_path / "out")
    assert "1 dead letters" in result.stdout
    assert read(tmp_path / "out" / "counts.jsonl")[0]["value"]["n"] == 2
    assert "ZeroDivisionError" in read(tmp_path / "out" / "clicks-dlq.jsonl")[0]["headers"]["error"]


@pytest.mark.thorough
def test_run_again_over_clean_input_removes_the_old_dead_letters(tmp_path: Path) -> None:
    app = write_app(tmp_path)
    bad = write_lines(tmp_path / "bad.jsonl", [click("ann", 0), {}])
    good = write_lines(tmp_path / "good.jsonl", [click("ann", 0)])
    streamforge("run", app, "--input", f"clicks={bad}", "--output", tmp_path / "out")
    assert (tmp_path / "out" / "clicks-dlq.jsonl").exists()
    streamforge("run", app, "--input", f"clicks={good}", "--output", tmp_path / "out")
    assert not (tmp_path / "out" / "clicks-dlq.jsonl").exists()


def test_run_with_lines_from_the_future_moves_time_all_the_same(tmp_path: Path) -> None:
    year_2200 = 7_258_118_400_000
    source = write_lines(tmp_path / "in.jsonl", [click("ann", year_2200), click("ann", 0)])
    result = streamforge("run", write_app(tmp_path), "--input", f"clicks={source}", "--output", tmp_path / "out", "--json")
    assert json.loads(result.stdout)["late"] == 1


def test_run_with_an_unknown_topic_names_the_sources(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", [])
    result = streamforge("run", write_app(tmp_path), "--input", f"cliks={source}", "--output", tmp_path / "out")
    assert_one_sentence(result, "'cliks' is no source of app 'clicks'", "its sources are clicks")


def test_run_with_a_missing_file_names_it(tmp_path: Path) -> None:
    result = streamforge("run", write_app(tmp_path), "--input", "clicks=nowhere.jsonl", "--output", tmp_path / "out")
    assert_one_sentence(result, "there is no file 'nowhere.jsonl' to read clicks from")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('{"value": {"person": "ann"}}', "not one of 1 records can be read by source 'clicks'; most often: not a valid Click"),
        ('{"user": "ann"}', "holds no record lines for clicks"),
    ],
)
def test_run_with_a_file_of_another_kind_says_what_is_wrong(tmp_path: Path, line: str, sentence: str) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(line + "\n")
    assert_one_sentence(streamforge("run", write_app(tmp_path), "--input", f"clicks={source}", "--output", tmp_path / "out"), sentence)


def test_run_with_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", [click("ann", 0)])
    result = streamforge("run", write_app(tmp_path), "--input", f"clicks={source}", "--output", source)
    assert result.exit_code != 0 and "is a file" in result.stderr


@pytest.mark.thorough
def test_run_with_on_error_fail_stops_at_a_bad_record(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", [click("ann", 0), {"user": "ann"}])
    app = write_app(tmp_path, options=', on_error="fail"')
    command = [sys.executable, "-m", "engine", "run", app, "--input", f"clicks={source}", "--output", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: not a valid Click") and done.stderr.count("\n") == 1
