"""The bench of decoding measures what it says: both decoders see the same records."""

from tests.bench.changes import measure


def test_decoding_is_measured_for_both_encodings_and_both_kinds_of_rows() -> None:
    found = measure(50)
    assert [each.name for each in found] == ["json into Order", "json into dict", "avro into Order", "avro into dict"]
    assert all(0 < each.fraction < 2 for each in found)
