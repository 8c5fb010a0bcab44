"""A file after `faust -A` is found as the module that it is."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from engine.runtime.faust_seam.app_files import answer_to_file_name


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module that is being imported from ./some_program.py of the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some_program.py").touch()
    module = ModuleType("some_program")
    module.__file__ = str(tmp_path / "some_program.py")
    monkeypatch.setitem(sys.modules, "some_program", module)
    monkeypatch.delitem(sys.modules, "some_program.py", raising=False)
    return module


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["faust", "-A", "some_program.py", "worker"], {}),
        (["faust", "-Asome_program.py", "worker"], {}),
        (["faust", "--app", "some_program.py:app", "worker"], {}),
        (["faust", "--app=some_program.py", "worker"], {}),
        (["faust", "worker"], {"FAUST_APP": "some_program.py"}),
    ],
)
def test_file_named_on_the_command_line_is_the_module(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch, arguments: list[str], environment: dict[str, str]
) -> None:
    answer_to_file_name(arguments, environment)
    assert sys.modules["some_program.py"] is program
    monkeypatch.delitem(sys.modules, "some_program.py")


@pytest.mark.parametrize("arguments", [["faust", "-A", "some_program"], ["faust", "-A", "other.py"], ["faust", "-A"], []])
def test_other_names_leave_the_modules_alone(program: ModuleType, arguments: list[str]) -> None:
    before = set(sys.modules)
    answer_to_file_name(arguments, {})
    assert set(sys.modules) == before


def test_file_of_the_same_name_elsewhere_is_another(program: ModuleType, tmp_path: Path) -> None:
    program.__file__ = str(tmp_path / "elsewhere" / "some_program.py")
    answer_to_file_name(["faust", "-A", "some_program.py"], {})
    assert "some_program.py" not in sys.modules
