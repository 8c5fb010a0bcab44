"""What the operating system says of a process, and whether it grows (Linux: /proc)."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

_WARM, _EARLY, _LATE = 0.2, 0.4, 0.8


class Sample(NamedTuple):
    """A look at a process after so many records, or rebalances."""

    done: int
    rss_mib: float
    files: int


class Growth(NamedTuple):
    """A process early (between a fifth and two fifths of the way) and late (in the last fifth): medians, and the most files."""

    early: Sample
    late: Sample

    @property
    def mib(self) -> float:
        """How much memory came on top."""
        return self.late.rss_mib - self.early.rss_mib

    @property
    def files(self) -> int:
        """How many open files came on top."""
        return self.late.files - self.early.files

    def __str__(self) -> str:
        return (
            f"{self.early.rss_mib:.0f} MiB and {self.early.files} files early, "
            f"{self.late.rss_mib:.0f} MiB and {self.late.files} files late ({self.mib:+.0f} MiB, {self.files:+d} files)"
        )


def look(process_id: int, done: int) -> Sample:
    """Look at a process."""
    status = Path(f"/proc/{process_id}/status").read_text()
    resident = int(status.partition("VmRSS:")[2].split()[0])
    return Sample(done, resident / 1024, sum(1 for _ in Path(f"/proc/{process_id}/fd").iterdir()))


def growth(samples: Sequence[Sample], total: int) -> Growth:
    """Compare early samples with late ones; there must be some of both."""
    early = [sample for sample in samples if _WARM * total <= sample.done <= _EARLY * total]
    late = [sample for sample in samples if sample.done >= _LATE * total]
    assert early and late, f"{len(early)} early and {len(late)} late samples of {len(samples)}: too few to tell"
    return Growth(_middle(early), _middle(late))


def _middle(samples: Sequence[Sample]) -> Sample:
    return Sample(
        samples[len(samples) // 2].done, statistics.median(sample.rss_mib for sample in samples), max(sample.files for sample in samples)
    )
