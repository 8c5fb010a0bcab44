"""The mutants as `catalog.toml` lists them, by the rule that they break."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

PATH = Path(__file__).with_name("catalog.toml")


@dataclass(frozen=True, slots=True)
class Mutant:
    """A rule broken in one file.

    Attributes:
        edits: Texts, each of which stands in the file once, and what takes its place.
        tests: Tests that may notice it, as pytest takes them; they are asked first.
        seeds: How many seeds of the simulator may notice it, from 0 on.
    """

    name: str
    rule: int
    path: str
    edits: tuple[tuple[str, str], ...]
    tests: tuple[str, ...]
    seeds: int


def read_catalog() -> list[Mutant]:
    """Return all mutants."""
    mutants = []
    for row in tomllib.loads(PATH.read_text())["mutant"]:
        edits = tuple((edit["old"], edit["new"]) for edit in row.get("edits", [row]))
        mutants.append(Mutant(row["name"], row["rule"], row["path"], edits, tuple(row.get("tests", ())), row.get("seeds", 0)))
    return mutants
