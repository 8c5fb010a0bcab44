import msgspec
from hypothesis import given
from hypothesis import strategies as st

from cdc.change import Change, Op, Position, Transaction

lsns = st.integers(0, 2**63 - 1)
positions = st.builds(Position, lsns, lsns)


@given(positions, positions)
def test_position_stored_compares_as_positions_do(a: Position, b: Position) -> None:
    assert (a < b) == (a.to_bytes() < b.to_bytes())
    assert Position.from_bytes(a.to_bytes()) == a


def test_change_of_a_struct_survives_messagepack() -> None:
    class User(msgspec.Struct, frozen=True):
        id: int

    change = Change(op=Op.UPDATE, key={"id": 1}, after=User(1), position=Position(1, 2), transaction=Transaction(7, 1), unavailable=("x",))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(change), type=Change[User]) == change


def test_change_row_is_after_or_before() -> None:
    assert Change(op=Op.UPDATE, before=1, after=2).row == 2
    assert Change(op=Op.DELETE, before=1).row == 1
    assert Change(op=Op.TRUNCATE).row is None
