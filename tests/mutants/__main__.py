"""`python -m tests.mutants [--rule R] [--only NAME] [--jobs J]`: break each rule in turn; fails if a mutant survives."""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mutants.catalog import Mutant, read_catalog

ROOT = Path(__file__).parents[2]
COPIED = ("state", "engine", "cdc", "agents", "tests", "pyproject.toml")
TIMEOUT_S = 1_200


class DoesNotApplyError(Exception):
    """The text that a mutant replaces does not stand in its file, or more than once."""


def main() -> int:
    """Run the chosen mutants; print a line for each, and a summary."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--rule", type=int, help="only the mutants of this rule")
    parser.add_argument("--only", help="only the mutant of this name")
    parser.add_argument("--jobs", type=int, default=2, help="how many at once (default 2)")
    options = parser.parse_args()
    chosen = [m for m in read_catalog() if options.rule in (None, m.rule) and options.only in (None, m.name)]
    if not chosen:
        parser.error("there is no such mutant")
    healthy = check_unchanged(chosen)
    if healthy is not None:
        print(f"the code as it is does not pass: {healthy}")
        return 1
    with ThreadPoolExecutor(options.jobs) as pool:
        caught = [_said(mutant, notice) for mutant, notice in zip(chosen, pool.map(try_mutant, chosen), strict=True)]
    print(f"{sum(caught)} caught, {len(caught) - sum(caught)} survived")
    return 0 if all(caught) else 1


def _said(mutant: Mutant, notice: str | None) -> bool:
    print(f"rule {mutant.rule:2}  {mutant.name:45} {notice or 'SURVIVED'}", flush=True)
    return notice is not None and not notice.startswith("does not apply")


def check_unchanged(mutants: Sequence[Mutant]) -> str | None:
    """Run everything that is to notice a mutant on an unchanged copy; return what fails, None if nothing does."""
    tests = tuple(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
    seeds = max(mutant.seeds for mutant in mutants)
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        root = copy_tree(Path(folder))
        return noticed(root, tests, seeds)


def try_mutant(mutant: Mutant) -> str | None:
    """Return by what a mutant is noticed, None if it survives."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        root = copy_tree(Path(folder))
        try:
            apply(mutant, root)
        except DoesNotApplyError as error:
            return f"does not apply: {error}"
        return noticed(root, mutant.tests, mutant.seeds)


def copy_tree(folder: Path) -> Path:
    """Copy what the tests need."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.is_file():
            shutil.copy(source, folder / name)
    return folder


def apply(mutant: Mutant, root: Path) -> None:
    """Change the copy.

    Raises:
        DoesNotApplyError: The code has changed: change the mutant too.
    """
    path = root / mutant.path
    text = path.read_text()
    for old, new in mutant.edits:
        if text.count(old) != 1:
            raise DoesNotApplyError(f"{mutant.path} has {text.count(old)} times {old.strip().splitlines()[0]!r}")
        text = text.replace(old, new)
    path.write_text(text)


def noticed(root: Path, tests: Sequence[str], seeds: int) -> str | None:
    """Return what notices that a copy is broken: the first test that fails, or the first seed."""
    if tests:
        words = ("-q", "-x", "-p", "no:cacheprovider", "--hypothesis-profile", "unshrunk", "-m", "not kafka and not slow")
        status, output = _run(root, "pytest", *words, *tests)
        if status == 1:
            return "caught by " + next((line.split()[1] for line in output.splitlines() if line.startswith("FAILED")), "a test")
        if status is None:
            return "caught by a test that does not end"
        assert status == 0, f"pytest could not run: {output[-2_000:]}"
    if seeds:
        status, output = _run(root, "tests.simulation", "--seeds", str(seeds), "--stop")
        if status is None:
            return None  # seeds have limits of their own: the machine is too slow to tell
        if status != 0:
            return "caught by " + next(
                (line.partition(" failed;")[0] for line in output.splitlines() if " failed; again" in line), "a crash"
            )
    return None


def _run(root: Path, *arguments: str) -> tuple[int | None, str]:
    """Run a module in a copy; return its status and what it said, the status None if it had to be ended."""
    try:
        done = subprocess.run([sys.executable, "-m", *arguments], cwd=root, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return None, ""
    return done.returncode, done.stdout + done.stderr


if __name__ == "__main__":
    sys.exit(main())
