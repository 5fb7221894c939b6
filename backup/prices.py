"""What keeping, thawing and deleting costs by storage class, `backup/prices.yaml`: data with a date, not knowledge of the code."""

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from warehouse import declared
from warehouse.settings import ROOT

StorageClass = Literal["STANDARD", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR", "GLACIER", "DEEP_ARCHIVE"]
Tier = Literal["Expedited", "Standard", "Bulk"]
PRICES_FILE = ROOT / "backup" / "prices.yaml"
_FROZEN: tuple[StorageClass, ...] = ("GLACIER", "DEEP_ARCHIVE")
_Price = Annotated[float, Field(ge=0)]
_GB, _KB = 1e9, 1024
_DAYS_OF_A_MONTH = 30.4375


class _Declared(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ThawPrice(_Declared):
    """A thaw of one tier: USD for a gigabyte and for a thousand objects, and the hours it takes at the most."""

    gb: _Price
    thousand: _Price
    hours: Annotated[float, Field(gt=0)]


class Overhead(_Declared):
    """Kilobytes charged beside each object."""

    own: Annotated[int, Field(ge=0)] = 0
    standard: Annotated[int, Field(ge=0)] = 0


class ClassPrice(_Declared):
    """One storage class; the keys are explained in the file."""

    gb_month: _Price
    thousand_puts: _Price = 0.0
    minimum_days: Annotated[int, Field(ge=0)] = 0
    read_gb: _Price = 0.0
    overhead_kb: Overhead = Overhead()
    thaw: dict[Tier, ThawPrice] = {}


class Prices(_Declared):
    """The whole of `backup/prices.yaml`."""

    as_of: date
    transfer_gb: _Price
    classes: dict[StorageClass, ClassPrice]

    @model_validator(mode="after")
    def _whole(self) -> "Prices":
        missing = [name for name in get_args(StorageClass) if name not in self.classes]
        if missing:
            raise ValueError(f"classes: {', '.join(missing)} is missing")
        for name, price in self.classes.items():
            if bool(price.thaw) != (name in _FROZEN):
                raise ValueError(f"classes.{name}.thaw: exactly {' and '.join(_FROZEN)} must be thawed before they are read")
        return self


def prices(path: Path | None = None) -> Prices:
    """The prices in force.

    Raises:
        DeclarationError: the file is missing or wrong.
    """
    return declared.read(path or PRICES_FILE, Prices)


def of(name: str) -> ClassPrice:
    """The price of a class as a store names it; one that the file does not know costs what STANDARD does."""
    known: Mapping[str, ClassPrice] = {str(key): price for key, price in prices().classes.items()}
    return known.get(name, known["STANDARD"])


def needs_thaw(name: str) -> bool:
    """Whether objects of a class can be read only after they were asked for."""
    return bool(of(name).thaw)


def month(name: str, bytes_: int, objects: int, usd_per_gb: float | None = None) -> float:
    """USD that objects of a class cost a month.

    Args:
        usd_per_gb: instead of the list price.
    """
    price, standard = of(name), prices().classes["STANDARD"].gb_month
    own = price.gb_month if usd_per_gb is None else usd_per_gb
    return ((bytes_ + objects * price.overhead_kb.own * _KB) * own + objects * price.overhead_kb.standard * _KB * standard) / _GB


def thaw(name: str, tier: str, bytes_: int, objects: int, days: int) -> dict[str, float]:
    """USD of a thaw and of the download after it: for the request, for the copy that lies open for some days, for the way out."""
    price, all_of = of(name), prices()
    asked = {str(key): one for key, one in price.thaw.items()}.get(tier)
    gigabytes = bytes_ / _GB
    return {
        "thaw": gigabytes * asked.gb + objects / 1000 * asked.thousand if asked else 0.0,
        "open copy": gigabytes * all_of.classes["STANDARD"].gb_month * days / _DAYS_OF_A_MONTH if asked else 0.0,
        "reading": gigabytes * price.read_gb,
        "transfer": gigabytes * all_of.transfer_gb,
    }


def early(name: str, bytes_: int, objects: int, days_left: int, usd_per_gb: float | None = None) -> float:
    """USD that deleting now is charged for, when so many days of the class's minimum are left."""
    return month(name, bytes_, objects, usd_per_gb) * max(0, days_left) / _DAYS_OF_A_MONTH
