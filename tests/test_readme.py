"""The tour in README.md works as it stands: its files, its command, its test."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"


def blocks() -> dict[str, str]:
    """Return the examples that have a name in their first line, by that name."""
    found = re.findall(r"^```\w+\n# (\S+)\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return dict(found)


def run(command: str, folder: Path) -> str:
    """Run a line of the tour in a folder, with the environment's programs first on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(command, shell=True, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_readme_first_pipeline_gives_what_is_said(tmp_path: Path) -> None:
    files = blocks()
    assert set(files) == {"hello.py", "orders.jsonl", "shell", "test_hello.py"}
    for name in ("hello.py", "orders.jsonl", "test_hello.py"):
        (tmp_path / name).write_text(files[name], encoding="utf-8")
    run(files["shell"], tmp_path)
    results = [json.loads(line)["value"] for line in (tmp_path / "out" / "revenue.jsonl").read_text().splitlines()]
    assert sorted((row["key"], row["revenue_cents"]) for row in results) == [("EUR", 250), ("EUR", 600), ("USD", 900)]
    assert "1 passed" in run("python -m pytest -q test_hello.py", tmp_path)
