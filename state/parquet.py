"""State as a Parquet file, for DuckDB and whatever else reads it. The door to duckdb (`pip install "streamforge[duckdb]"`).

Columns: pipeline, operator, state, key, time_ms, sub, value, k, v; key, sub and value are JSON texts (`value->>'$.orders'` in DuckDB).
"""

from pathlib import Path
from types import ModuleType

from state.errors import StateError

_COLUMNS = dict.fromkeys(("pipeline", "operator", "state"), "VARCHAR") | {
    "key": "JSON",
    "time_ms": "BIGINT",
    "sub": "JSON",
    "value": "JSON",
    "k": "VARCHAR",
    "v": "VARCHAR",
}


def lines_to_parquet(lines: Path, target: Path) -> None:
    """Write the entries of a file of JSON lines (`Entry.line`) as Parquet.

    Raises:
        StateError: duckdb is not installed, or the file cannot be written.
    """
    duckdb = _duckdb()
    columns = "{" + ", ".join(f"'{name}': '{kind}'" for name, kind in _COLUMNS.items()) + "}"
    with duckdb.connect() as connection:
        try:
            connection.execute(
                f"COPY (SELECT * FROM read_json('{_quoted(lines)}', format='newline_delimited', columns={columns}, "  # noqa: S608
                f"maximum_object_size=268435456)) TO '{_quoted(target)}' (FORMAT parquet)"
            )
        except duckdb.Error as error:
            raise StateError(f"{target} could not be written: {error}") from error


def parquet_to_lines(source: Path, lines: Path) -> None:
    """Write the rows of such a Parquet file as JSON lines again.

    Raises:
        StateError: duckdb is not installed, or the file is not one.
    """
    duckdb = _duckdb()
    with duckdb.connect() as connection:
        try:
            connection.execute(f"COPY (SELECT * FROM '{_quoted(source)}') TO '{_quoted(lines)}' (FORMAT json)")  # noqa: S608
        except duckdb.Error as error:
            raise StateError(f"{source} could not be read: {error}") from error


def _duckdb() -> ModuleType:
    try:
        import duckdb
    except ImportError as error:
        raise StateError('Parquet needs DuckDB: pip install "streamforge[duckdb]", or use JSON lines (.jsonl)') from error
    return duckdb


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
