"""Pieces: none holds the loop for long, and together they are the batch."""

from hypothesis import given
from hypothesis import strategies as st

from engine.records import RecordBatch
from engine.runtime.cutting import LEAST_RECORDS, PieceSize, cut_piece, join_batches


def test_piece_size_fast_pieces_grow_at_most_twofold() -> None:
    size = PieceSize(0.020, 10_000)
    size.took(1_024, 0.001)
    assert size.records == 2_048


def test_piece_size_slow_piece_shrinks_at_once() -> None:
    size = PieceSize(0.020, 10_000)
    size.took(1_024, 0.200)
    assert size.records == 102


def test_piece_size_small_fast_piece_says_nothing() -> None:
    size = PieceSize(0.020, 10_000)
    size.took(3, 0.001)
    assert size.records == 1_024


def test_piece_size_slow_partial_piece_shrinks_too() -> None:
    size = PieceSize(0.020, 10_000)
    size.took(100, 0.100)
    assert size.records == 20


def test_piece_size_on_a_busy_machine_follows_the_work() -> None:
    size = PieceSize(0.020, 10_000)
    size.took(1_024, 0.020, 0.050)
    assert size.records == 1_024


def test_piece_size_that_waits_for_a_disk_follows_the_wall_clock() -> None:
    size = PieceSize(0.020, 10_000)
    size.took(1_024, 0.001, 0.240)
    assert size.records == 256


def test_piece_size_stays_within_its_bounds() -> None:
    size = PieceSize(0.020, 3_000)
    for _ in range(5):
        size.took(size.records, 0.0)
    assert size.records == 3_000
    size.took(3_000, 3_600.0)
    assert size.records == LEAST_RECORDS


@given(st.lists(st.integers(1, 4), max_size=20), st.lists(st.integers(1, 7), min_size=1, max_size=30), st.integers(0, 3))
def test_cut_piece_pieces_together_are_the_batch(steps: list[int], sizes: list[int], hole: int) -> None:
    offsets = [100 + sum(steps[: number + 1]) for number in range(len(steps))]
    headers = [((f"h{offset}", b""),) for offset in offsets]
    end = (offsets[-1] + 1 if offsets else 100) + hole
    batch = RecordBatch(
        "t", 0, offsets, offsets, [b"k"] * len(offsets), [b"v"] * len(offsets), position=100, next_offset=end, read_headers=lambda: headers
    )
    start, position, seen = 0, 100, []
    pieces = []
    for size in sizes + [1] * len(offsets):
        piece = cut_piece(batch, start, size)
        assert piece.position == position
        pieces.append(piece)
        position = piece.next_offset
        seen += list(zip(piece.offsets, piece.headers, strict=True))
        start += len(piece)
        if start >= len(batch):
            break
    assert seen == list(zip(offsets, headers, strict=True))
    assert position == end
    joined = join_batches(pieces)
    for column in ("offsets", "timestamps", "keys", "values", "headers", "position", "next_offset"):
        assert getattr(joined, column) == getattr(batch, column), column
