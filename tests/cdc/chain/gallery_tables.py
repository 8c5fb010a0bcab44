"""Tables with a column of every type that PostgreSQL 15 has and Debezium may capture, and values at the edges of each.

Row n of a table holds the n-th value of each column, from the beginning again where a column has fewer; the last row is all null.
"""

from collections.abc import Iterator
from typing import NamedTuple

EXTENSIONS = ("hstore", "ltree", "citext")
TYPES = """
create type mood as enum ('glad', 'so so', 'it''s "bad"');
create domain cents as numeric(9, 3) check (value > -1000);
create domain small as int;
create domain label as varchar(12);
create domain moment as timestamptz;
create domain deeper as small;
create type pair as (x int, y text);
"""
_TEXT = "'héllo \"q\" 漢字 \\\\ 🎈'"


class Held(NamedTuple):
    """A column: its name, its type in SQL, and its values as SQL writes them."""

    name: str
    type: str
    values: tuple[str, ...]


def held(name: str, type_: str, *values: str) -> Held:
    """Return a column; values that are no literal and no expression yet are put in quotes."""
    return Held(name, type_, tuple(value if value[0] == "'" or "::" in value else f"'{value}'" for value in values))


NUMBERS = [
    held("smallint", "smallint", "1", "-32768", "32767"),
    held("int", "int", "2", "-2147483648", "2147483647", "0"),
    held("bigint", "bigint", "3", "-9223372036854775808", "9223372036854775807", "9007199254740993"),
    held("num10_2", "numeric(10,2)", "12345678.90", "-0.01", "0", "99999999.99"),
    held("num38_0", "numeric(38,0)", "1", "9" * 38, "-" + "9" * 38),
    held("num5_5", "numeric(5,5)", "0.00001", "-0.99999", "0.5"),
    held("num3_5", "numeric(3,5)", "0.00999", "-0.00001"),
    held("num5_m2", "numeric(5,-2)", "1234500", "-100", "0"),
    held("num60_20", "numeric(60,20)", "1234567890123456789012345678901234567890.12345678901234567891", "-1e-20"),
    held("num", "numeric", "12345678901234567890.0123456789", "1e-300", "-7", "1000000", "1e300", "0.0", "0"),
    held("numnan", "numeric", "NaN", "1.0", "NaN"),
    held("num8_2nan", "numeric(8,2)", "NaN", "1.50", "-2.25"),
    held("money", "money", "1234.56", "-0.01", "92233720368547758.07", "-92233720368547758.08"),
    held("real", "real", "1.1", "NaN", "-Infinity", "3.4028235e38", "1e-45", "16777217", "0.1", "-0"),
    held("double", "double precision", "0.1", "Infinity", "NaN", "1.7976931348623157e308", "5e-324", "-0", "123456789.125"),
    held("bool", "boolean", "true", "false"),
    held("oid", "oid", "42", "4294967295"),
    held("cents", "cents", "12.345", "-999.999", "0"),
    held("small", "small", "5", "-5"),
    held("deeper", "deeper", "6"),
    held("defaulted", "int not null default 5", "7", "-7"),
]
TEXTS = [
    held("text", "text", _TEXT, "''", "' '", "'null'", "'line\nbreak\ttab'"),
    held("varchar", "varchar(10)", "'ab '", "''", "'漢字漢字漢字漢字漢字'"),
    held("char", "char(5)", "'ab'", "''", "'abcde'"),
    held("char1", "char(1)", "'x'", "' '"),
    held("bpchar", "bpchar", "'ab '", "'x'"),
    held("quoted_char", '"char"', "'c'"),
    held("name", "name", "'a_name'"),
    held("label", "label", "'a label'"),
    held("citext", "citext", "'CiText'"),
    held("ltree", "ltree", "'top.a.b'", "''"),
    held("uuid", "uuid", "'6f1c2f0e-4a3d-4c5b-9e11-0123456789ab'", "'00000000-0000-0000-0000-000000000000'"),
    held("json", "json", '\'{"b":1, "a":[1,2.50,null]}\'', "'null'", "'\"s\"'", "'[]'", "'12345678901234567890.123'", "' {\"a\" : {}} '"),
    held("jsonb", "jsonb", '\'{"b":1, "a":[1,2.50,null]}\'', "'null'", "'\"s\"'", "'[]'", "'12345678901234567890.123'", "'true'"),
    held("xml", "xml", "'<a b=\"1\">1 &amp; 2</a>'", "'<!-- c --><x/>'"),
    held("bytea", "bytea", "'\\x00ff10deadbeef'", "'\\x'", "'\\x00'"),
    held("mood", "mood", "'glad'", "'so so'", "'it''s \"bad\"'"),
    held("hstore", "hstore", '\'a=>1, b=>NULL, "c d"=>"e\\"f"\'', "''", "'x=>\"\"'"),
    held("inet", "inet", "'10.1.2.3/24'", "'::1'", "'2001:db8::ff00:42:8329/64'", "'192.168.0.1'"),
    held("cidr", "cidr", "'10.1.0.0/16'", "'2001:db8::/32'", "'0.0.0.0/0'"),
    held("macaddr", "macaddr", "'08:00:2b:01:02:03'"),
    held("macaddr8", "macaddr8", "'08:00:2b:01:02:03:04:05'"),
    held("bit1", "bit(1)", "B'1'::bit(1)", "B'0'::bit(1)"),
    held("bit8", "bit(8)", "B'10110011'::bit(8)", "B'00000000'::bit(8)"),
    held("bit64", "bit(64)", f"B'{'1' * 63}0'::bit(64)", f"B'1{'0' * 63}'::bit(64)"),
    held("bit70", "bit(70)", f"B'1{'0' * 68}1'::bit(70)"),
    held("varbit", "varbit(12)", "B'101'::varbit", "B''::varbit", "B'000000000001'::varbit"),
    held("varbit0", "varbit", "B'1011011101111'::varbit"),
    held("point", "point", "'(1.5,-2)'", "'(0,0)'"),
    held("tsvector", "tsvector", "'a:1 fat:2B cat:3'", "'''it''''s'':1'"),
    held("tsquery", "tsquery", "'fat & (rat | cat)'"),
    held("pg_lsn", "pg_lsn", "'16/B374D848'"),
    held("xid8", "xid8", "'123456789012'"),
    held("txid", "txid_snapshot", "'10:20:10,14'"),
    held("pair", "pair", "'(1,two)'::pair"),
    held("line", "line", "'{1,2,3}'"),
    held("box", "box", "'(2,2),(0,0)'"),
    held("circle", "circle", "'<(1,2),3>'"),
    held("polygon", "polygon", "'((0,0),(1,0),(1,1))'"),
]
_TIMESTAMPS = (
    "2026-02-28 23:59:59.123456", "infinity", "-infinity", "1969-12-31 23:59:59.999999", "0044-03-15 12:00:00 BC",
    "1582-10-04 00:00:00", "1582-10-15 00:00:00.000001", "9999-12-31 23:59:59.999999", "294276-12-31 23:59:59.999999",
    "0001-01-01 00:00:00", "2000-02-29 12:34:56",
)  # fmt: skip


def _zoned(text: str) -> str:
    return text.replace(" BC", "+05:30 BC") if "BC" in text else text if "infinity" in text else f"{text}+00"


TIMES = [
    held("date", "date", *(f"'{text}'" for text in (
        "2026-02-28", "infinity", "-infinity", "1582-10-04", "0044-03-15 BC", "9999-12-31", "5874897-12-31", "4713-11-24 BC", "0001-01-01"
    ))),
    held("time", "time", "'13:14:15.123456'", "'24:00:00'", "'00:00:00'", "'23:59:59.999999'", "'00:00:00.000001'"),
    held("time0", "time(0)", "'13:14:15'", "'24:00:00'"),
    held("time3", "time(3)", "'13:14:15.123'", "'24:00:00'", "'23:59:59.999'"),
    held("timetz", "timetz", "'13:14:15.123456+02'", "'00:00:00-12'", "'23:59:59.5+05:30'", "'12:00:00+00'"),
    held("timestamp", "timestamp", *(f"'{text}'" for text in _TIMESTAMPS)),
    held("timestamp0", "timestamp(0)", "'2026-02-28 23:59:59'", "'infinity'"),
    held("timestamp3", "timestamp(3)", "'2026-02-28 23:59:59.123'", "'infinity'", "'0044-03-15 12:00:00 BC'", "'-infinity'"),
    held("timestamptz", "timestamptz", *(f"'{_zoned(text)}'" for text in _TIMESTAMPS), "'2026-07-01 12:00:00+05:30'"),
    held("timestamptz0", "timestamptz(0)", "'2026-02-28 23:59:59+01'"),
    held("moment", "moment", "'2026-02-28 23:59:59.5-03'"),
    held("interval", "interval", *(f"'{text}'" for text in (
        "1 year 2 mons 3 days 04:05:06.789", "-1 mons -00:00:01", "0", "1 mon -3 days", "100000:00:00.000001", "178000000 years",
        "-5 days 23:00:00",
    ))),
    held("interval_ym", "interval year to month", "'3 years 4 mons'"),
    held("interval_ds", "interval day to second(2)", "'3 days 04:05:06.78'"),
]  # fmt: skip
RANGES = [
    held("int4range", "int4range", "'[1,10)'", "'empty'", "'(,5]'", "'[3,)'", "'(,)'", "'[-2147483648,0]'"),
    held("int8range", "int8range", "'[1,9223372036854775807)'", "'empty'"),
    held("numrange", "numrange", "'(1.5,2.50]'", "'[0.1,0.1]'", "'(,NaN)'"),
    held("daterange", "daterange", "'[2026-01-01,2026-02-01)'", "'[2026-01-01,infinity)'", "'empty'", "'(,2026-01-01)'"),
    held(
        "tsrange",
        "tsrange",
        "'[2026-01-01 00:00,2026-01-02 00:00:00.5)'",
        "'(,)'",
        "'[-infinity,infinity]'",
        "'[0044-03-15 BC,2026-01-01)'",
    ),
    held("tstzrange", "tstzrange", "'[2026-01-01 00:00+00,)'", "'(2026-01-01 00:00+05:30,2026-01-02 00:00:00.25+00]'", "'empty'"),
    held("int4multirange", "int4multirange", "'{[1,3),[5,7)}'", "'{}'"),
    held("datemultirange", "datemultirange", "'{[2026-01-01,2026-01-02)}'"),
    held("nummultirange", "nummultirange", "'{(1.5,2.5]}'"),
]


def _arrays() -> Iterator[Held]:
    plain = {
        "smallint": "1,-32768", "int": "2,2147483647", "bigint": "3,9223372036854775807", "numeric(6,2)": "1.5,-0.01",
        "numeric": "1.25,1e20", "real": "1.1,-0.5", "double precision": "0.1,1e300", "boolean": "t,f",
        "uuid": "6f1c2f0e-4a3d-4c5b-9e11-0123456789ab", "date": "2026-02-28,1582-10-04", "time": "13:14:15.123456,00:00:00",
        "time(3)": "13:14:15.123", "timetz": "13:14:15.5+02", "oid": "42", "inet": "10.1.2.3/24,::1", "cidr": "10.1.0.0/16",
        "macaddr": "08:00:2b:01:02:03", "char(3)": "ab,abc", "money": "1.50,-2", "bit(3)": "101,001", "varbit(5)": "101,1",
        "citext": "CiText", "ltree": "a.b,c", "mood": 'glad,"so so"', "small": "5,-5", "label": "x,y",
    }  # fmt: skip
    for type_, items in plain.items():
        yield held(f"a_{type_}".translate({ord(c): "_" for c in " (),"}), f"{type_}[]", f"'{{{items}}}'", f"'{{{items},NULL}}'", "'{}'")
    quoted = {
        "text": ["a", "b,c", '"q"', "", "NULL", "漢 字"], "varchar(5)": ["a b", ""],
        "timestamp": ["2026-01-01 00:00:00.000001", "1969-12-31 23:59:59"], "timestamp(3)": ["2026-01-01 00:00:00.5"],
        "timestamptz": ["2026-01-01 00:00:00+05:30", "2026-01-01 00:00:00.000001+00"],
        "interval": ["1 day", "1 year 2 mons -00:00:01"], "json": ['{"a": 1}', "null", "[1]"], "jsonb": ['{"a": 1}', "null"],
        "xml": ["<a>1</a>"], "int4range": ["[1,10)", "empty"], "int8range": ["[1,10)"], "numrange": ["[1.5,2)"],
        "daterange": ["[2026-01-01,2026-01-02)"], "tsrange": ["[2026-01-01,2026-01-02)"], "tstzrange": ["[2026-01-01 00:00+00,)"],
        "hstore": ["a=>1, b=>NULL"], "point": ["(1.5,-2)"], "tsvector": ["a:1 b:2"],
    }  # fmt: skip
    for type_, texts in quoted.items():
        listed = ", ".join("'" + text.replace("'", "''") + "'" for text in texts)
        name = f"a_{type_}".translate({ord(c): "_" for c in " (),"})
        yield held(name, f"{type_}[]", f"array[{listed}]::{type_}[]", f"array[{listed}, null]::{type_}[]", f"array[]::{type_}[]")
    yield held("a_bytea", "bytea[]", "array['\\x0102', '\\x', null]::bytea[]", "array[]::bytea[]")
    yield held("a_two", "int[][]", "'{{1,2},{3,4}}'", "'{1,2}'")


ARRAYS = list(_arrays())
TABLES: dict[str, list[Held]] = {"numbers": NUMBERS, "texts": TEXTS, "times": TIMES, "ranges": RANGES, "arrays": ARRAYS}


def statements(table: str, columns: list[Held]) -> Iterator[str]:
    """Yield what makes a table and fills it: ids from 1; the table is left with REPLICA IDENTITY FULL."""
    yield f"create table {table} (id int primary key, {', '.join(f'c_{column.name} {column.type}' for column in columns)})"
    yield f"alter table {table} replica identity full"


def inserts(table: str, columns: list[Held], first: int) -> Iterator[str]:
    """Yield the rows, ids from `first` on."""
    rows = max(len(column.values) for column in columns)
    for row in range(rows):
        values = (column.values[row % len(column.values)] for column in columns)
        yield f"insert into {table} values ({first + row}, {', '.join(values)})"
    nullable = [column for column in columns if "not null" not in column.type]
    names = "".join(f", c_{column.name}" for column in nullable)
    yield f"insert into {table} (id{names}) values ({first + rows}{', null' * len(nullable)})"


def truth(table: str, columns: list[Held]) -> str:
    """Return the query that says what the database holds: each column as the text that PostgreSQL writes for it."""
    said = (f"{_said('c_' + column.name, column.type)} as c_{column.name}" for column in columns)
    return f"select id, {', '.join(said)} from {table} order by id"


def _said(name: str, type_: str) -> str:
    base = type_.split(" not null")[0]
    if base.endswith("[][]"):
        return f"{name}::text"
    if base.endswith("[]"):
        parts = f"array(select {_said('e', base[:-2])} from unnest({name}) with ordinality u(e, n) order by n)"
        return f"case when {name} is not null then {parts} end"
    if base.startswith("interval"):
        parts = f"extract(year from {name}) * 12 + extract(month from {name}), extract(day from {name}), "
        parts += f"extract(hour from {name}) * 3600000000 + extract(minute from {name}) * 60000000 + extract(microseconds from {name})"
        return f"case when {name} is not null then concat_ws(' ', {parts}) end"
    if base == "timetz":
        return f"({name} at time zone 'UTC')::text"
    if base == "money":
        return f"{name}::numeric::text"
    if base == "bytea":
        return f"encode({name}, 'hex')"
    if base.startswith(("char(", "bpchar")):
        return name  # as text it would lose its padding
    return f"hstore_to_json({name})::text" if base == "hstore" else f"{name}::text"
