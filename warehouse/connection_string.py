"""PostgreSQL's connection strings: taken apart as libpq does, several hosts too; and what in them must never be shown."""

import re
from urllib.parse import unquote

_HARMLESS_HOSTS = {"localhost", "127.0.0.1", "::1", "0.0.0.0"}  # noqa: S104 - compared with, never listened on
_SECRET_PARAMETERS = ("password", "sslpassword")
_PAIR = re.compile(r"(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|[^\s']+)")


def parameters(text: str) -> dict[str, str]:
    """libpq's parameters of `postgresql://user:password@host:5432,other:5432/database?name=value`, or of `name=value …`.

    Raises:
        ValueError: it is neither, or a port is not a number; the message shows nothing of it.
    """
    if "://" not in text:
        pairs = {key: re.sub(r"\\(.)", r"\1", value.strip("'")) for key, value in _PAIR.findall(text)}
        if not pairs:
            raise ValueError("is not a connection string")
        return pairs
    user, password, hosts, database, query = _split(text)
    names, ports = [], []
    for host in hosts.split(","):
        found = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::(\d*))?", host)
        if not found:
            raise ValueError("has a port that is not a number (an IPv6 address stands in brackets)")
        names.append(found.group(1).strip("[]"))
        ports.append(found.group(2) or "")
    given = {"user": user, "password": password, "dbname": database}
    given["host"] = ",".join(names) if any(names) else ""
    given["port"] = ",".join(ports) if any(ports) else ""
    given.update(pair.partition("=")[::2] for pair in query.split("&") if pair)
    decoded = {unquote(key): unquote(value) for key, value in given.items() if value}
    if decoded.pop("ssl", None) == "true":
        decoded.setdefault("sslmode", "require")
    return decoded


def password_of(text: str) -> str | None:
    """The password inside a connection string, or None."""
    try:
        return parameters(text).get("password")
    except ValueError:
        return None


def secrets_of(text: str) -> list[str]:
    """The passwords inside a connection string, as they stand there (percent-encoded, it may be) and as they are."""
    try:
        found = [value for name, value in parameters(text).items() if name in _SECRET_PARAMETERS]
    except ValueError:
        found = []
    if "://" in text:
        _, password, _, _, query = _split(text)
        found += [password, *(value for name, _, value in (pair.partition("=") for pair in query.split("&")) if name in _SECRET_PARAMETERS)]
    return [value for value in found if value]


def hosts_of(text: str) -> list[str]:
    """The names and addresses of servers in a connection string that tell something to strangers.

    Not `localhost`, and no ordinary word like `db`: taking such out of every message would leave none readable.
    """
    try:
        given = parameters(text)
    except ValueError:
        return []
    names = [name for key in ("host", "hostaddr") for name in given.get(key, "").split(",")]
    return [name for name in names if name not in _HARMLESS_HOSTS and not name.startswith(("/", "@")) and re.search(r"[^A-Za-z]", name)]


def _split(url: str) -> tuple[str, str, str, str, str]:
    """User, password, hosts, database and query of a URL, nothing decoded; a password may hold what should have been encoded."""
    rest, _, query = url.partition("://")[2].partition("?")
    account, _, place = rest.rpartition("@")
    user, _, password = account.partition(":")
    hosts, _, database = place.partition("/")
    return user, password, hosts, database, query
