"""Errors that say what is wrong, where, and how to mend it; and the scrubbing of what must not be shown."""

import re


class WarehouseError(Exception):
    """A failure the operator can act on. `exit_code` is what the command line returns for it."""

    exit_code = 3

    def __init__(self, what: str, *, mend: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.what}\n  mend: {self.mend}" if self.mend else self.what


class UsageError(WarehouseError):
    """A setting, a declared file or a command line that cannot work; found before anything was done."""

    exit_code = 2


class DeclarationError(UsageError):
    """A declared file (YAML) with an unknown key, a wrong value or broken syntax."""


class StepFailed(WarehouseError):
    """A step was tried and failed; nothing of it is visible and it can be repeated."""


class LeaseHeld(StepFailed):
    """Another process is the warehouse's writer."""


class FindingsFound(WarehouseError):
    """Every step ran, but checks found something wrong with the data."""

    exit_code = 1


_SECRET_PAIR = re.compile(r"(?i)\b(password|passwd|pwd|token|secret|motherduck_token)\s*[=:]\s*('[^']*'|\"[^\"]*\"|[^\s,;)]+)")
_URL_PASSWORD = re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)[^/@\s]*@")
_PRIVATE_KEY = re.compile(r"AGE-SECRET-KEY-[0-9A-Za-z]+")
# libpq names the server and the address it found for it; the database's own answers name ours.
_SERVER = re.compile(r'(?i)\b(server at|server on|host(?: name)?|certificate for) "[^"]*"(?: \([0-9a-f.:]+\))?')
_HOST_PAIR = re.compile(r"(?i)\b(host|hostaddr)=('[^']*'|[^\s'\"]+)")
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# What must never be shown even when a library puts the offending value into its message.
_PERSONAL = (
    re.compile(r"[A-Za-z0-9._%+'-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}"),
    re.compile(r"\b\d{3}-\d{2}-\d{4}\b"),
    re.compile(r"\+\d[\d ().-]{6,}\d"),
)


def mend_of(text: str, otherwise: str) -> str:
    """The mend for a library's message: its own where the disk is full, whoever noticed it."""
    return "free some space or move WAREHOUSE_HOME, and run again; nothing half-done is visible" if "No space left" in text else otherwise


def scrub(text: str) -> str:
    """Take secrets, names of servers, personal data and terminal codes out of a message before it is shown, logged or kept."""
    from warehouse.settings import secret_hosts, secret_values

    text = _ANSI.sub("", text)
    for secret in secret_values():
        text = text.replace(secret, "***")
    text = _HOST_PAIR.sub(r"\1=***", _SERVER.sub(r'\1 "***"', text))
    for host in secret_hosts():
        text = re.sub(rf"(?<![\w.-]){re.escape(host)}(?![\w-])", "***", text, flags=re.IGNORECASE)
    text = _URL_PASSWORD.sub(r"\1***@", text)
    text = _PRIVATE_KEY.sub("***", _SECRET_PAIR.sub(r"\1=***", text))
    for pattern in _PERSONAL:
        text = pattern.sub("[personal]", text)
    return text
