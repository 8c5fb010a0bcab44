"""The ratios that a run is compared with, and what the aims are."""

import tomllib
from collections.abc import Mapping
from pathlib import Path

FILE = Path(__file__).parent / "baseline.toml"
TOLERANCE = 0.15
AIMS: dict[str, float] = {"A0": 0.5, "B": 0.35, "C": 0.2}
"""Ratios to the control that each job is to reach."""


def read_baseline(file: Path = FILE) -> dict[str, float]:
    """Return the ratio of each job that the baseline has."""
    return {job: float(ratio) for job, ratio in tomllib.loads(file.read_text())["cpu_ratios"].items()}


def write_baseline(ratios: Mapping[str, float], file: Path = FILE) -> None:
    """Replace the ratios of these jobs; the others, and what stands before them, stay."""
    head, mark, _ = file.read_text().partition("[cpu_ratios]\n")
    merged = {**read_baseline(file), **ratios}
    file.write_text(head + mark + "".join(f"{job} = {ratio:.2f}\n" for job, ratio in merged.items()))


def shortfalls(ratios: Mapping[str, float], baseline: Mapping[str, float]) -> list[str]:
    """Return a line for each job that falls more than 15 % short of the baseline."""
    return [
        f"SLOWER THAN THE BASELINE: {job} reaches {ratio:.2f} of the control, "
        f"{1 - ratio / baseline[job]:.0%} less than the {baseline[job]:.2f} in {FILE.name}"
        for job, ratio in ratios.items()
        if job in baseline and ratio < baseline[job] * (1 - TOLERANCE)
    ]


def verdicts(ratios: Mapping[str, float]) -> list[str]:
    """Return a line for each job that has an aim."""
    return [
        f"{job}: {ratio:.2f} of the control, {'reaches' if ratio >= AIMS[job] else 'BELOW'} the aim of {AIMS[job]}"
        for job, ratio in ratios.items()
        if job in AIMS
    ]
