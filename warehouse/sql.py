"""Names, values and files inside SQL text. Whatever comes from outside is bound instead wherever the engine can bind it."""

from pathlib import Path


def quoted(identifier: str) -> str:
    """An identifier for SQL text, in PostgreSQL's and DuckDB's way alike."""
    return '"' + identifier.replace('"', '""') + '"'


def literal(value: str | Path | None) -> str:
    """A text or a path as a constant; an empty one for None."""
    return "'" + str(value or "").replace("'", "''") + "'"


def parquet(file: Path) -> str:
    """What follows `COPY … TO`: the file and how Parquet is written everywhere.

    Version 2 holds numbers and times as differences: a third less to keep and to read than version 1, and written faster.
    """
    return f"{literal(file)} (FORMAT parquet, PARQUET_VERSION v2, COMPRESSION zstd)"
