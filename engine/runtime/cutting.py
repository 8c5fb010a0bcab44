"""How large a piece of a batch may be so that nothing holds the event loop for long (heartbeats share it).

The size follows the measured time: towards the aim, at most doubled in one step, halved at once when a piece took too long.

    aim 20 ms    1,024 records in 4 ms  → 2,048    2,048 in 70 ms  → 585

Results never depend on it (design rule 5).
"""

FIRST_RECORDS = 1_024
LEAST_RECORDS = 16


class PieceSize:
    """Records of the next piece."""

    def __init__(self, aim_s: float, records_max: int) -> None:
        self._aim_s = aim_s
        self._records_max = records_max
        self.records = min(FIRST_RECORDS, records_max)

    def took(self, records: int, seconds: float) -> None:
        """A piece of so many records took so long: adapt the size."""
        if records < self.records and seconds < self._aim_s:
            return
        fitting = self.records * 2 if seconds <= 0 else int(records * self._aim_s / seconds)
        self.records = max(LEAST_RECORDS, min(fitting, self.records * 2, self._records_max))
