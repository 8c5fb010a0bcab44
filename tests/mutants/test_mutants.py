"""The mutants fit the code, and (slow) none of them survives."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants.__main__ import DoesNotApplyError, apply
from tests.mutants.catalog import Mutant, read_catalog

ROOT = Path(__file__).parents[2]
CATALOG = read_catalog()


def test_catalog_breaks_every_rule_and_names_what_must_notice() -> None:
    assert {mutant.rule for mutant in CATALOG} == set(range(16))  # 0: the watchdog, which is not one of the fifteen rules
    assert len({mutant.name for mutant in CATALOG}) == len(CATALOG)
    assert all(mutant.tests or mutant.seeds for mutant in CATALOG)


@pytest.mark.parametrize("mutant", CATALOG, ids=[mutant.name for mutant in CATALOG])
def test_mutant_changes_code_that_is_there(mutant: Mutant, tmp_path: Path) -> None:
    """If this fails after a change of the code: change the mutant in catalog.toml as well, so that it breaks the same thing."""
    copy = tmp_path / mutant.path
    copy.parent.mkdir(parents=True)
    copy.write_text((ROOT / mutant.path).read_text())
    apply(mutant, tmp_path)
    compile(copy.read_text(), mutant.path, "exec")
    assert all((ROOT / test.partition("::")[0]).exists() for test in mutant.tests)


def test_mutant_whose_text_is_gone_does_not_apply(tmp_path: Path) -> None:
    (tmp_path / "file.py").write_text("twice = 1\ntwice = 1\n")
    for old in ("twice = 1", "never = 1"):
        with pytest.raises(DoesNotApplyError):
            apply(Mutant("gone", 1, "file.py", ((old, "x = 2"),), (), 1), tmp_path)


@pytest.mark.slow
def test_mutants_are_all_noticed() -> None:
    done = subprocess.run([sys.executable, "-m", "tests.mutants"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
