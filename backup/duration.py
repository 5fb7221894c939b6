"""Durations as declared files write them: 15m, 6h, 30d, 7y."""

import math
import re
from datetime import timedelta
from typing import Annotated

from pydantic import BeforeValidator

_HOURS = {"m": 1 / 60, "h": 1.0, "d": 24.0, "y": 24 * 365.25}


def _parsed(value: object) -> object:
    if isinstance(value, timedelta):
        return value
    found = re.fullmatch(r"([1-9]\d*)\s*([mhdy])", str(value).strip())
    if not found:
        raise ValueError("a duration is a whole number and one of m, h, d, y, for example 6h or 30d")
    hours = int(found.group(1)) * _HOURS[found.group(2)]
    return timedelta(days=math.ceil(hours / 24)) if found.group(2) == "y" else timedelta(hours=hours)


Duration = Annotated[timedelta, BeforeValidator(_parsed)]
"""Years have 365.25 days, rounded up: seven are 2,557."""


def described(duration: timedelta) -> str:
    """A duration as the policy writes it."""
    if duration % timedelta(hours=1):
        return f"{duration // timedelta(minutes=1)}m"
    hours = duration // timedelta(hours=1)
    return f"{hours // 24}d" if hours % 24 == 0 else f"{hours}h"
