"""The house rules of models, one class each; `linter:` in config.yaml turns them on.

They stand in one file because SQLMesh counts a base class imported from another file as the same rule declared twice.
"""

import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path

from sqlglot import exp
from sqlmesh.core.linter.rule import Rule, RuleViolation
from sqlmesh.core.model import ExternalModel, Model, SqlModel


class HouseRule(Rule):  # type: ignore[misc]  # sqlmesh ships no type information
    """A rule for the models of this project; what others own (external_models/) is not held to it."""

    @abstractmethod
    def problems(self, model: Model) -> Iterable[str]:
        """What is wrong with the model: one sentence each, saying what to write instead."""

    def check_model(self, model: Model) -> list[RuleViolation]:
        """SQLMesh: the violations of one model."""
        return [] if isinstance(model, ExternalModel) else [self.violation(problem) for problem in self.problems(model)]


class CompleteHeader(HouseRule):
    """A model states its owner, its grain (in columns it has) and its description."""

    def problems(self, model: Model) -> Iterable[str]:
        """A missing owner, grain or description, or a grain of unknown columns."""
        if not model.owner:
            yield "no owner: write `owner <team>` into the header, the team that answers for the model"
        if not model.grains:
            yield "no grain: write `grain <column>` or `grain (<column>, <column>)`, the columns that identify one row"
        if not model.description:
            yield "no description: write `description '…'`, what one row is and what a reader must know"
        for grain in model.grains:
            for unknown in sorted(_column_names(grain) - set(model.columns_to_types or {})):
                yield f"the grain names {unknown}, which is not a column of the model: name columns of its SELECT"


class EveryColumnDescribed(HouseRule):
    """Each column is described in the header, and nothing else is."""

    def problems(self, model: Model) -> Iterable[str]:
        """Columns without a description, and descriptions without a column."""
        # Not `column_descriptions`: that one falls back to comments in the query.
        described = model.column_descriptions_ or {}
        columns = model.columns_to_types or {}
        for column in columns:
            if not described.get(column, "").strip():
                yield f"column {column} is not described: write `{column} = '…'` into column_descriptions, its meaning and unit"
        for name in described:
            if name not in columns:
                yield f"column_descriptions describes {name}, which is not a column of the model: remove or rename it"


class MeaningsSayMore(HouseRule):
    """The meaning of a mart's column tells what its name does not."""

    def problems(self, model: Model) -> Iterable[str]:
        """Meanings of nothing but the words of the name."""
        for column, meaning in (model.column_descriptions_ or {}).items() if model.name.startswith("marts.") else ():
            if meaning.strip() and _words(meaning) - _FILLERS <= _words(column):
                yield f"the meaning of {column}, '{meaning}', only repeats its name: say what is counted or measured, of what, when and in which unit"


class MoneyNamesItsCurrency(HouseRule):
    """An amount in a mart says in which currency it is, or a column of the mart does."""

    def problems(self, model: Model) -> Iterable[str]:
        """Amounts of which neither the meaning nor a column says the currency."""
        columns = model.columns_to_types or {}
        currencies = [column for column in columns if column == "currency" or column.endswith("_currency")]
        if not model.name.startswith("marts.") or "currency" in currencies or len(currencies) == 1:
            return
        for column, kind in columns.items():
            meaning = (model.column_descriptions_ or {}).get(column, "")
            if _is_money(column, kind, meaning) and not _words(f"{column} {meaning}") & _CURRENCIES:
                yield (
                    f"{column} looks like money, and nothing says in which currency: add a column currency, or name the one meant in the meaning "
                    "('…, in the settlement currency'); if it is no money, say what it is: a share, a rate, a number of …"
                )


class PathIsTheName(HouseRule):
    """A model is found where its name says."""

    def problems(self, model: Model) -> Iterable[str]:
        """A path that is none of the house's, or another name than the path says."""
        if model._path is None:
            return
        path = Path(model._path).resolve().relative_to(Path(self.context.path).resolve())
        expected = _name_of(path)
        if expected is None:
            yield f"{path} is no place for a model: move it to models/staging/<source>/stg_<source>__<table>.sql or models/marts/<domain>/<name>.sql"
        elif model.name != expected:
            yield f"the name is {model.name}, the path says {expected}: write `name {expected}` or move the file"


class ExplicitCasts(HouseRule):
    """Each projection of the outermost SELECT is cast: an inferred type would change with whatever lies below."""

    def problems(self, model: Model) -> Iterable[str]:
        """Projections without a cast, in each branch of a UNION."""
        if isinstance(model, SqlModel):
            for select in _outermost_selects(model.query):
                for projection in select.expressions:
                    if not projection.is_star and not isinstance(projection.unalias(), exp.Cast):
                        name = projection.alias_or_name or projection.sql(dialect=model.dialect)
                        yield f"column {name} has no explicit cast: write `<expression>::<TYPE> AS {name}` in the outermost SELECT"


class StarOnlyInImportCtes(HouseRule):
    """`SELECT *` stands only in import CTEs (`WITH orders AS (SELECT * FROM staging.…)`), so that a new column goes nowhere unseen."""

    def problems(self, model: Model) -> Iterable[str]:
        """Stars in any SELECT that is not an import CTE."""
        if isinstance(model, SqlModel):
            own_ctes = {cte.alias for cte in model.query.find_all(exp.CTE)}
            for select in model.query.find_all(exp.Select):
                if any(projection.is_star for projection in select.expressions) and not _is_import_cte(select, own_ctes):
                    yield f"`{_shortened(select.sql(dialect=model.dialect))}` is no import CTE: list its columns instead of *"


class MartsAreAudited(HouseRule):
    """Each build of a mart proves that its grain is unique and never null."""

    def problems(self, model: Model) -> Iterable[str]:
        """A grain without an audit of its uniqueness, or with columns that may be null."""
        if not model.name.startswith("marts."):
            return
        never_null = _audited_columns(model, "not_null")
        for grain in (_column_names(grain) for grain in model.grains):
            written = f"({', '.join(sorted(grain))})"
            if not _is_proved_unique(model, grain):
                audit = "unique_values" if len(grain) == 1 else "unique_combination_of_columns"
                yield f"nothing proves that the grain is unique: add `{audit}(columns := {written})` to audits"
            if not grain <= set().union(*never_null):
                yield f"the grain may be null: add `not_null(columns := {written})` to audits"


class OnlyLiveRows(HouseRule):
    """Marts read Stripe's objects of the live mode alone.

    Staging keeps both modes, so that a test in Stripe can be looked at in the warehouse. Filtering at the one gate to the
    marts, and by a rule instead of by habit, is what keeps invented money out of revenue.
    """

    def problems(self, model: Model) -> Iterable[str]:
        """Reading a Stripe view otherwise than alone, filtered by `is_live`."""
        if model.name.startswith("marts.") and isinstance(model, SqlModel):
            for table in model.query.find_all(exp.Table):
                if table.name.startswith("stg_stripe__") and not _reads_live_rows(table):
                    yield f"{table.name} is read with its test mode: read it as `WITH … AS (SELECT * FROM staging.{table.name} WHERE is_live)`"


def _words(text: str) -> set[str]:
    """Its words in lower case and the singular."""
    return {re.sub(r"(?<=\w\w)(?<!s)s$", "", re.sub(r"ies$", "y", word)) for word in re.findall(r"[^\W_]+", text.lower())}


_FILLERS = _words("a an the this that its his their of is are for in by and column field value todo tbd")
_CURRENCIES = _words("currency usd eur gbp chf jpy cad aud nzd sek nok dkk pln inr cny brl")
_MONEY = _words("amount revenue price fee cost spend tax mrr arr balance value")
_NO_MONEY = _words("share rate ratio retention percent percentage probability factor score number count")
_UNITS = _words("second minute hour day week month year quantity unit order customer user")


def _is_money(column: str, kind: exp.DataType, meaning: str) -> bool:
    """Whether a number is an amount: one with a name of money, or a DECIMAL that says nothing else of itself."""
    name = _words(column)
    if name & _NO_MONEY:
        return False
    if name & _MONEY:
        return bool(kind.is_type("decimal", "double", "float"))
    return bool(kind.is_type("decimal")) and not (name & _UNITS or _words(meaning) & _NO_MONEY or "0 to 1" in meaning)


def _name_of(path: Path) -> str | None:
    match path.parts:
        case ("models", "staging", source, file) if file.startswith(f"stg_{source}__"):
            return f"staging.{path.stem}"
        case ("models", "marts", _, _):
            return f"marts.{path.stem}"
    return None


def _outermost_selects(query: exp.Expr) -> Iterator[exp.Select]:
    if isinstance(query, exp.SetOperation):
        yield from _outermost_selects(query.left)
        yield from _outermost_selects(query.right)
    elif isinstance(query, exp.Subquery):
        yield from _outermost_selects(query.this)
    elif isinstance(query, exp.Select):
        yield query


def _is_import_cte(select: exp.Select, own_ctes: set[str]) -> bool:
    """Whether it is a CTE that takes one whole table of another model, at most filtered."""
    source = select.args.get("from_")
    table = source.this if source else None
    if not isinstance(select.parent, exp.CTE) or not isinstance(table, exp.Table):
        return False
    return not select.args.get("joins") and not (not table.db and table.name in own_ctes)


def _reads_live_rows(table: exp.Table) -> bool:
    """Whether a SELECT takes this table alone and demands `is_live` of each row."""
    source = table.parent
    select = source.parent if isinstance(source, exp.From) else None
    if not isinstance(select, exp.Select) or select.args.get("joins"):
        return False
    where = select.args.get("where")
    return where is not None and any(isinstance(demand, exp.Column) and demand.name == "is_live" for demand in _demands(where.this))


def _demands(condition: exp.Expr) -> Iterator[exp.Expr]:
    """The conditions of which each must hold."""
    condition = condition.unnest()
    if isinstance(condition, exp.And):
        yield from _demands(condition.left)
        yield from _demands(condition.right)
    else:
        yield condition


def _shortened(text: str, length: int = 60) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _is_proved_unique(model: Model, grain: set[str]) -> bool:
    if len(grain) == 1 and any(grain <= columns for columns in _audited_columns(model, "unique_values")):
        return True
    return grain in _audited_columns(model, "unique_combination_of_columns")


def _audited_columns(model: Model, audit: str) -> list[set[str]]:
    """The columns of each use of an audit that looks at every row and stops the build."""
    return [
        _column_names(arguments["columns"])
        for name, arguments in model.audits
        if name == audit and "columns" in arguments and not {"condition", "blocking"} & arguments.keys()
    ]


def _column_names(expression: exp.Expr) -> set[str]:
    """The columns named by `a`, `(a)` or `(a, b)`."""
    return {column.name for column in expression.find_all(exp.Column)}
