"""A search of every byte: what a text looks like in common encodings, and which files hold it, also where they are compressed."""

import base64
import gzip
import hashlib
import json
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, quote_plus

import duckdb

_LEFT_OUT = ("duckdb_extensions",)


def encodings(text: str) -> set[bytes]:
    """A text as it may stand somewhere: plain, in other alphabets and byte orders, quoted for links and JSON, and hashed without a key."""
    found: set[bytes] = set()
    for form in {text, text.lower(), text.upper()}:
        data = form.encode()
        shifted = {base64.b64encode(b"x" * shift + data)[4 if shift else 0 : -4] for shift in range(3)}
        found |= {data, form.encode("utf-16-le"), form.encode("utf-16-be"), form.encode("utf-32-le"), data.hex().encode(), data.hex().upper().encode()}
        found |= {quote(form).encode(), quote_plus(form).encode(), json.dumps(form)[1:-1].encode(), form.replace("@", "\\u0040").encode()}
        found |= shifted | {one.replace(b"+", b"-").replace(b"/", b"_") for one in shifted}
        for digest in (hashlib.md5(data), hashlib.sha1(data), hashlib.sha256(data)):
            found |= {digest.digest(), digest.hexdigest().encode(), base64.b64encode(digest.digest())}
    return found


def found_in(home: Path, texts: Iterable[str]) -> dict[str, set[str]]:
    """File -> the texts that stand in it; Parquet, DuckDB, SQLite and gzip are searched by their bytes and by their values."""
    wanted = {text: encodings(text) for text in texts}
    plain = {text: {text.encode(), text.lower().encode()} for text in wanted}
    files = (path for path in home.rglob("*") if path.is_file() and not path.is_symlink() and not set(_LEFT_OUT) & set(path.parts))
    found = {str(file.relative_to(home)): stands_in(file.read_bytes(), wanted) | stands_in(_values(file), plain) for file in sorted(files)}
    return {name: hits for name, hits in found.items() if hits}


def stands_in(content: bytes, wanted: dict[str, set[bytes]]) -> set[str]:
    """Which texts stand in some bytes, by their encodings. One pass looks for all of them at once, so that finding nothing is cheap."""
    if not content or not _any(content, {form for forms in wanted.values() for form in forms}):
        return set()
    return {text for text, forms in wanted.items() if any(form in content for form in forms)}


def _any(content: bytes, forms: set[bytes]) -> bool:
    with tempfile.NamedTemporaryFile() as patterns:
        patterns.write(b"\n".join(sorted(form for form in forms if b"\n" not in form)))
        patterns.flush()
        ran = subprocess.run(["grep", "-a", "-F", "-q", "-f", patterns.name], input=content, env={"LC_ALL": "C"}, check=False)
    return ran.returncode == 0 or any(form in content for form in forms if b"\n" in form)


def _values(file: Path) -> bytes:
    if file.suffix == ".parquet":
        return _as_text(duckdb.connect(), [f"read_parquet('{file}')"])
    if file.suffix == ".duckdb":
        with duckdb.connect(str(file), read_only=True) as connection:
            tables = connection.execute("SELECT schema_name, table_name FROM duckdb_tables()").fetchall()
            return _as_text(connection, [f'{schema}."{table}"' for schema, table in tables])
    if file.suffix == ".sqlite":
        with closing(sqlite3.connect(file)) as connection:
            return "\n".join(connection.iterdump()).encode()
    if file.suffix == ".gz":
        return gzip.decompress(file.read_bytes())
    return b""


def _as_text(connection: duckdb.DuckDBPyConnection, relations: list[str]) -> bytes:
    """All rows as text, made by DuckDB: a row is a structure, whatever its columns."""
    found = [connection.execute(f"SELECT string_agg(one::VARCHAR, chr(10)) FROM {relation} AS one").fetchone() for relation in relations]
    return "\n".join(row[0] or "" for row in found if row).encode()
