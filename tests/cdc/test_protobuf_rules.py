"""Compatibility of Protobuf files by hand-made cases, and by what the generated classes make of each other's records."""

from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

from cdc.protobuf_rules import protobuf_breaks
from cdc.protobuf_text import parse
from engine.errors import RecordError
from tests.cdc.test_protobuf_codec import LEGACY, PAYMENT


def proto(body: str, syntax: str = "proto3", package: str = "shop") -> str:
    return f'syntax = "{syntax}"; package {package};\nmessage M {{ {body} }}\n'


BASE = proto("string id = 1; int64 cents = 2; oneof how { string card = 3; string bank = 4; }")

CASES: dict[str, tuple[str, str, str | None]] = {
    "field added": (BASE, BASE.replace("int64 cents = 2;", "int64 cents = 2; string note = 9;"), None),
    "field removed": (BASE, BASE.replace("int64 cents = 2;", ""), None),
    "field renamed": (BASE, BASE.replace("cents", "amount"), None),
    "package changed": (BASE, BASE.replace("package shop", "package store"), None),
    "type within its group": (BASE, BASE.replace("int64 cents", "uint32 cents"), None),
    "string to bytes": (BASE, BASE.replace("string id", "bytes id"), None),
    "type of another group": (BASE, BASE.replace("int64 cents", "sint64 cents"), "M.cents is int64 and would be read as sint64"),
    "type changed": (BASE, BASE.replace("int64 cents", "string cents"), "M.cents is int64 and would be read as string"),
    "fixed to varint": (proto("fixed64 n = 1;"), proto("int64 n = 1;"), "M.n is fixed64 and would be read as int64"),
    "enum to int": (proto("E e = 1; enum E { A = 0; }"), proto("int32 e = 1;"), None),
    "enum to another": (
        proto("E e = 1; enum E { A = 0; } enum F { B = 0; }"), proto("F e = 1; enum E { A = 0; } enum F { B = 0; }"),
        "M.e is enum M.E and would be read as enum M.F",
    ),
    "enum value added and removed": (proto("E e = 1; enum E { A = 0; B = 1; }"), proto("E e = 1; enum E { A = 0; C = 2; }"), None),
    "one to many of a scalar": (proto("int32 n = 1;"), proto("repeated int32 n = 1;"), "M.n holds one int32 and would be read as many"),
    "one to many of a text": (proto("string s = 1;"), proto("repeated string s = 1;"), None),
    "number changed": (BASE, BASE.replace("cents = 2", "cents = 7"), "M.cents has moved from number 2 to 7"),
    "reserved number taken": (proto("reserved 5 to 7;"), proto("string s = 6;"), "takes number 6, which was reserved"),
    "reserved name taken": (proto('reserved "s";'), proto("string s = 6;"), "M.s has a name that was reserved"),
    "number beside what is reserved": (proto("reserved 5 to 7;"), proto("string s = 8;"), None),
    "member of a oneof removed": (BASE, BASE.replace("string bank = 4;", ""), "M.bank is gone from oneof how"),
    "member of a oneof added": (BASE, BASE.replace("string bank = 4;", "string bank = 4; string cash = 5;"), None),
    "oneof dissolved": (BASE, proto("string id = 1; int64 cents = 2; string card = 3; string bank = 4;"), None),
    "one field into a new oneof": (proto("string a = 1;"), proto("oneof x { string a = 1; string b = 2; }"), None),
    "two fields into a oneof": (
        proto("string a = 1; string b = 2;"), proto("oneof x { string a = 1; string b = 2; }"), "M: a, b could all be set",
    ),
    "field into a oneof that is there": (
        BASE, proto("int64 cents = 2; oneof how { string card = 3; string bank = 4; string id = 1; }"), "could all be set, and oneof how",
    ),
    "optional is no oneof": (proto("string a = 1; string b = 2;"), proto("optional string a = 1; optional string b = 2;"), None),
    "message removed": (BASE + "message N { string x = 1; }", BASE, "message N is gone"),
    "nested message changed": (
        proto("N n = 1; message N { int32 x = 1; }"), proto("N n = 1; message N { string x = 1; }"), "M.N.x is int32",
    ),
    "map value widened": (proto("map<string, int32> m = 1;"), proto("map<string, int64> m = 1;"), None),
    "map value changed": (
        proto("map<string, int32> m = 1;"), proto("map<string, string> m = 1;"), "M.m is map<string, int32> and would be read as map",
    ),
    "required added": (proto("", "proto2"), proto("required int32 n = 1;", "proto2"), "M.n is required, and not in the written data"),
    "required from optional": (
        proto("optional int32 n = 1;", "proto2"), proto("required int32 n = 1;", "proto2"), "M.n is required, and may be missing",
    ),
    "required removed": (proto("required int32 n = 1;", "proto2"), proto("", "proto2"), None),
    "imported type": (proto("other.Money m = 1;"), proto("other.Cash m = 1;"), "M.m is other.Money and would be read as other.Cash"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_breaks_by_what_is_on_the_wire(name: str) -> None:
    writer, reader, reason = CASES[name]
    found = protobuf_breaks(reader=reader, writer=writer)
    assert found == [] if reason is None else len(found) == 1 and reason in found[0], found


def compiled(folder: Path, text: str, name: str = "file.proto") -> "descriptor_pb2.FileDescriptorProto":
    """Return what protoc makes of a text."""
    (folder / "money.proto").write_text('syntax = "proto3"; package shop.money; message Money { string currency = 1; int64 cents = 2; }')
    (folder / name).write_text(text)
    out = folder / "set"
    well_known = str(Path(protoc.__file__).parent / "_proto")
    assert protoc.main(["protoc", f"-I{folder}", f"-I{well_known}", f"--descriptor_set_out={out}", str(folder / name)]) == 0
    (file,) = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    return file


ODD = """
// a comment with "quotes" and { braces }
syntax = "proto3"; /* another { one */
package a.b; option java_package = "x;y";
import public "google/protobuf/timestamp.proto";
message Outer {
  option deprecated = true;
  message Inner { optional string Inner = 1 [deprecated = true, json_name = "a]b"]; reserved 2, 4 to 6, 100 to max; reserved "x", 'y'; }
  enum Kind { option allow_alias = true; ZERO = 0; NEGATIVE = -1; HEX = 0x10; ALSO = 0x10; reserved 7 to 9; }
  Inner inner = 1; .a.b.Outer.Inner full = 2; Outer.Kind kind = 3; repeated Kind kinds = 4 [packed = false];
  map<int64, Outer.Inner> by_number = 5; map<string, google.protobuf.Timestamp> at_times = 6;
  oneof which { option (x) = { y: "z" }; string message = 7; Inner one = 8; }
  a.b.Other other = 9;
}
message Other { int32 optional = 1; string map = 2; bytes reserved_for = 3; }
service Ignored { rpc Get (Outer) returns (Other) { option idempotency_level = NO_SIDE_EFFECTS; } }
"""


@pytest.mark.parametrize("text", [PAYMENT, LEGACY, ODD.replace('option (x) = { y: "z" };', "")])
def test_parsed_files_are_what_protoc_makes_of_them(tmp_path: Path, text: str) -> None:
    wanted, found = compiled(tmp_path, text), parse(text)
    assert parse(text) == found

    def plain(message: "descriptor_pb2.DescriptorProto") -> object:
        fields = [(f.name, f.number, f.label, f.type_name.rpartition(".")[2], f.proto3_optional) for f in message.field]
        scalars = [(f.name, f.type) for f in message.field if not f.type_name]
        kinds = [(f.name, f.type) for f in message.field if f.type_name.startswith((".a.b", ".shop.Payment"))]
        oneofs = [d.name for d in message.oneof_decl if not d.name.startswith("_")]
        members = [
            (f.name, message.oneof_decl[f.oneof_index].name) for f in message.field if f.HasField("oneof_index") and not f.proto3_optional
        ]
        reserved = [(r.start, r.end) for r in message.reserved_range], list(message.reserved_name)
        enums = [(e.name, [(v.name, v.number) for v in e.value], [(r.start, r.end) for r in e.reserved_range]) for e in message.enum_type]
        nested = [(n.name, n.options.map_entry, plain(n)) for n in sorted(message.nested_type, key=lambda n: n.name)]
        return fields, scalars, kinds, oneofs, members, reserved, enums, nested

    assert [(m.name, plain(m)) for m in found.message_type] == [(m.name, plain(m)) for m in wanted.message_type]
    assert (found.package, list(found.dependency)) == (wanted.package, list(wanted.dependency))


def test_options_of_any_form_are_passed_over() -> None:
    assert parse(ODD) == parse(ODD.replace('option (x) = { y: "z" };', ""))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hello", "'hello' where a message or an enum may begin"),
        ('syntax = "proto3"; message M {', "ends in the middle"),
        ('syntax = "proto3"; message M { string s 1; }', "'1' where '=' is expected"),
        ('syntax = "proto3"; message M { string s = x; }', "'x' where the number of a field is expected"),
        ('edition = "2023"; message M { }', "an edition"),
        ("message M { optional group G = 1 { } }", "groups"),
        ('syntax = "proto3"; message M { string s = 1; } ~', "not a Protobuf file: '~'"),
    ],
)
def test_what_is_no_protobuf_file_is_refused_with_its_place(text: str, words: str) -> None:
    with pytest.raises(RecordError, match=words.replace("(", r"\(")):
        parse(text)
