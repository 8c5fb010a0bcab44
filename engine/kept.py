"""How states keep whole values of a stream: as MessagePack, and none that a source can read stands in the way of a commit.

    {"k": "a", "x": 7}                        MessagePack, one call
    {"k": "a", "x": 123456789012345678901}    byte C1, which MessagePack never uses, then `engine.untyped.encode_wide`

State is written as bytes at the commit, when no record can be blamed any more. So what cannot be written at all, an object in a value
of undeclared type, must be refused while its record is in hand: `refuse_unstorable`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from engine import untyped
from engine.errors import RecordError
from engine.operators.undeclared import refuse_structs
from state.values import PayloadCodec

WIDE = b"\xc1"


def kept_codec(value_type: Any) -> PayloadCodec[Any]:
    """Return the codec of whole values, or of a tuple or list type that holds some."""
    encode, decode = kept_functions(value_type)
    return PayloadCodec(encode, decode, value_type)


def kept_functions(value_type: Any) -> tuple[Callable[[Any], bytes], Callable[[Any], Any]]:
    """Return (encode, decode) of that codec."""
    pack, unpack, unpack_wide = untyped.encoder(value_type), untyped.decoder(value_type), untyped.wide_decoder(value_type)

    def encode(value: Any) -> bytes:
        try:
            return pack(value)
        except OverflowError:
            return WIDE + untyped.encode_wide(value, order=None)

    def decode(raw: Any) -> Any:
        try:
            return unpack(raw)
        except msgspec.MsgspecError:
            if raw[:1] != WIDE:
                raise
            return unpack_wide(raw[1:])

    return encode, decode


_check = kept_functions(list[Any])[0]


def refuse_unstorable(values: Sequence[Any], where: str) -> None:
    """Refuse values of undeclared type that state cannot keep: Structs (they would come back as dicts), and objects without a form.

    Raises:
        RecordError: There is one; `where` says what would happen to it ("is kept by a join").
    """
    if untyped.PLAIN.issuperset(map(type, values)):
        return
    refuse_structs(values, where)
    try:
        _check(values)
    except Exception as error:
        raise RecordError(f"a value {where}, and cannot be stored: {error}") from error


__all__ = ["WIDE", "kept_codec", "kept_functions", "refuse_unstorable"]
