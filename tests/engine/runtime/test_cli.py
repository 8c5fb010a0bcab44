"""The command line: naming apps, drawing them, and refusing what cannot work in one sentence."""

import json
import subprocess
import sys
from importlib.metadata import EntryPoint
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner

from engine.drawing import draw_mermaid, draw_text
from engine.errors import UnavailableError
from engine.runtime.app import App
from engine.runtime.cli import main, root
from engine.runtime.loading import load_app
from tests.engine.runtime.test_cli_run import assert_one_sentence, streamforge
from tests.programs import minute_revenue

NO_BROKER = "kafka://127.0.0.1:1"


def test_help_lists_every_command() -> None:
    result = streamforge("--help")
    for command in ("dlq", "pipelines", "run", "send", "tail", "topics", "transactions", "worker"):
        assert f"\n  {command} " in result.stdout


def test_python_m_engine_is_the_same_command() -> None:
    done = subprocess.run([sys.executable, "-m", "engine", "nonsense"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "No such command 'nonsense'" in done.stderr


def test_commands_of_other_packages_are_listed_and_run(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint("views", "engine.runtime.cli.pipelines:pipelines", root.GROUP)]
    monkeypatch.setattr(root, "entry_points", lambda group, name=None: [point for point in points if name in (None, point.name)])
    assert "\n  views " in streamforge("--help").stdout
    assert "minute-revenue" in streamforge("views", "tests.programs.minute_revenue").stdout


def test_commands_of_packages_that_are_not_here_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint("gone", "no_such_package.commands:gone", root.GROUP)]
    monkeypatch.setattr(root, "entry_points", lambda group, name=None: [point for point in points if name in (None, point.name)])
    assert streamforge("--help").exit_code == 0
    assert_one_sentence(streamforge("gone", "--fast"), "gone needs 'no_such_package', which is not installed here")


# -- naming an app


def test_an_app_is_found_by_module_by_name_and_by_file() -> None:
    assert load_app("tests.programs.minute_revenue", App) is minute_revenue.app
    assert load_app("tests.programs.minute_revenue:app", App) is minute_revenue.app
    file = Path(minute_revenue.__file__)
    assert load_app(str(file), App) is load_app(f"{file}:app", App)
    assert load_app(str(file), App).topology.app_id == "minute-revenue"


def test_an_app_under_another_name_is_found_if_it_is_the_only_one(tmp_path: Path) -> None:
    (tmp_path / "other_name.py").write_text("from engine import App\nshop = App('shop-1', broker='memory://')\n")
    assert load_app(str(tmp_path / "other_name.py"), App).topology.app_id == "shop-1"


@pytest.mark.parametrize(
    ("pipelines", "sentence"),
    [
        ("no_such_module_at_all", "there is no module 'no_such_module_at_all'"),
        ("tests.programs.nothing", "there is no module 'tests.programs.nothing'"),
        ("no/such/file.py", "there is no file 'no/such/file.py'"),
        ("tests.programs:app", "'app' is not there; an App is needed"),
        ("tests.programs.minute_revenue:Order", "'Order' is a StructMeta; an App is needed"),
        ("tests.programs", "has no App; make one with app = App"),
        ("not a module", "is no name of a module; PIPELINES is a module, module:app or file.py"),
        (".relative", "PIPELINES is a module, module:app or file.py"),
    ],
)
def test_an_app_that_is_not_there_is_one_sentence(pipelines: str, sentence: str) -> None:
    assert_one_sentence(streamforge("pipelines", pipelines), sentence)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("import no_such_library\n", "could not be loaded: ModuleNotFoundError: No module named 'no_such_library'"),
        ("x = 1\nx.y\n", "could not be loaded: AttributeError: 'int' object has no attribute 'y' ("),
        ("def f(:\n", "could not be loaded: SyntaxError: invalid syntax"),
        ("from engine import App\napp = App('a', broker='memory://', partitons=3)\n", "partitons= is not known; did you mean partitions=?"),
        ("from engine import App\na = App('a', broker='memory://')\nb = App('b', broker='memory://')\n", "has several apps; say which"),
    ],
)
def test_an_app_that_cannot_be_loaded_is_one_sentence(tmp_path: Path, source: str, sentence: str) -> None:
    path = tmp_path / "broken_app.py"
    path.write_text(source)
    assert_one_sentence(streamforge("pipelines", path), sentence)


# -- drawing


def test_pipelines_as_text_shows_what_reads_what() -> None:
    text = draw_text(minute_revenue.app.topology.plan())
    assert text.splitlines() == [
        "app minute-revenue: 1 pipeline, 4 partitions",
        "",
        "revenue: Revenue of each currency, minute by minute.",
        "  orders",
        "  └─ filter",
        "     └─ key_by",
        "        └─ combine",
        "           └─ window-repartition, through minute-revenue-revenue-window-repartition-1",
        "              └─ window",
        "                 └─ revenue",
    ]


def test_pipelines_as_mermaid_links_topics_and_operators() -> None:
    chart = draw_mermaid(minute_revenue.app.topology.plan())
    assert chart.startswith("flowchart LR\n")
    ids = {line.split("[")[1].strip('(")]'): line.split("[")[0].strip() for line in chart.splitlines() if "[" in line}
    path = ["orders", "filter", "key_by", "combine", "minute-revenue-revenue-window-repartition-1", "window", "revenue"]
    for one, other in pairwise(path):
        assert f"    {ids[one]} --> {ids[other]}" in chart.splitlines()


def test_pipelines_as_json_lists_topics_with_their_roles() -> None:
    described = json.loads(streamforge("pipelines", "tests.programs.minute_revenue", "--json").stdout)
    roles = {topic["name"]: topic["role"] for topic in described["topics"]}
    assert (roles["orders"], roles["revenue"], roles["minute-revenue-dlq"]) == ("source", "output", "dead letters")
    operators = described["pipelines"][0]["operators"]
    assert [operator["name"] for operator in operators if operator["keeps_state"]] == ["window-repartition", "window"]


# -- brokers


@pytest.mark.parametrize(
    "command",
    [
        ["worker", "{app}"],
        ["send", "t", "f", "-A", "{app}"],
        ["tail", "t", "-A", "{app}"],
        ["topics", "list", "-A", "{app}"],
        ["dlq", "list", "-A", "{app}"],
        ["dlq", "replay", "--all", "-A", "{app}"],
        ["transactions", "list", "-A", "{app}"],
    ],
)
def test_commands_that_need_a_second_process_refuse_memory(command: list[str]) -> None:
    app = "tests.programs.minute_revenue"
    result = streamforge(*[part.format(app=app) for part in command])
    assert_one_sentence(result, "memory:// lives inside one process", "`streamforge run`", "kafka://")


def test_commands_without_a_broker_ask_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STREAMFORGE_BROKER", raising=False)
    assert_one_sentence(streamforge("tail", "orders"), "which broker? Give --app PIPELINES, --broker kafka://host:9092")


@pytest.mark.parametrize(
    ("options", "environ", "expected"),
    [
        (["-A", "{app}", "--broker", "kafka://told:1"], "kafka://environ:1", "kafka://told:1"),
        (["-A", "{app}", "--broker", "kafka://told:1"], None, "kafka://told:1"),
        (["--broker", "kafka://told:1"], "kafka://environ:1", "kafka://told:1"),
        (["-A", "{app}"], "kafka://environ:1", "kafka://environ:1"),
        (["-A", "{app}"], None, "kafka://app:1"),
        ([], "kafka://environ:1", "kafka://environ:1"),
    ],
)
def test_broker_that_is_told_beats_the_environment_which_beats_the_app(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], environ: str | None, expected: str
) -> None:
    asked: list[str] = []

    class Nowhere:
        async def start(self) -> None:
            raise UnavailableError("nobody answers")

        async def stop(self) -> None:
            """Nothing is open."""

    def note(broker: str, **_: object) -> Nowhere:
        asked.append(broker)
        return Nowhere()

    monkeypatch.delenv("STREAMFORGE_BROKER", raising=False)
    if environ is not None:
        monkeypatch.setenv("STREAMFORGE_BROKER", environ)
    monkeypatch.setattr("engine.runtime.cli.connection.make_transport", note)
    monkeypatch.setattr("engine.runtime.app.make_transport", note)
    path = tmp_path / f"brokers_{len(options)}_{environ is None}.py"
    path.write_text("from engine import App\napp = App('brokers', broker='kafka://app:1')\n")
    streamforge("topics", "list", *[option.format(app=path) for option in options])
    assert asked == [expected]


def test_send_with_a_bad_line_names_it_and_sends_nothing(tmp_path: Path) -> None:
    file = tmp_path / "orders.jsonl"
    file.write_text('{"value": 1}\n{"valeu": 1}\n')
    assert_one_sentence(streamforge("send", "orders", file, "--broker", NO_BROKER), f"{file}, line 2", "nothing was sent")


def test_send_of_a_missing_file_names_it() -> None:
    assert_one_sentence(streamforge("send", "orders", "nowhere.jsonl", "--broker", NO_BROKER), "nowhere.jsonl: No such file or directory")


@pytest.mark.slow
def test_command_with_a_broker_that_does_not_answer_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMFORGE_BROKER", NO_BROKER)
    assert_one_sentence(streamforge("topics", "list"), "127.0.0.1:1")


def test_main_is_a_click_group() -> None:
    assert CliRunner().invoke(main, ["--version"]).exit_code == 0


@pytest.mark.thorough
def test_worker_process_ends_when_its_parent_was_killed() -> None:
    child = "import os, signal; from engine.runtime.cli.worker import end_with; end_with(os.getppid()); print('ready', flush=True); "
    child += "signal.pause()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.kill()
    assert process.stdout.read() == ""  # the end of file: the child, who holds the pipe too, has ended
    process.wait()


def test_an_error_that_marks_a_place_below_its_text_keeps_its_lines(tmp_path: Path) -> None:
    program = tmp_path / "marked.py"
    program.write_text('from engine import cep\n\ncep.match_recognize("PARTITION BY a ORDER BY b PATTERN (A B DEFINE A AS c > 1")\n')
    result = streamforge("pipelines", str(program))
    first, shown, mark = result.stderr.splitlines()
    assert result.exit_code == 1 and first.startswith("Error: ") and first.endswith("column 54: ) is expected here, not >")
    assert shown[mark.index("^")] == ">"
