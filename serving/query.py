"""Ask the published copy one question, with no way to anything else on the machine."""

from typing import Any

from serving.publish import READ_COPY
from warehouse.errors import StepFailed, UsageError, scrub
from warehouse.settings import settings


def query(sql: str, *, limit: int) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Run a read-only query on the read copy.

    Args:
        sql: one statement that returns rows; it may read the marts and nothing else, neither files nor the network.
        limit: the number of rows to return at the most.

    Returns:
        the names of the columns, and the rows.

    Raises:
        StepFailed: nothing is published yet. UsageError: the query is wrong or reaches outside the marts.
    """
    import duckdb

    read_copy = settings().published / READ_COPY
    if not read_copy.exists():
        raise StepFailed("nothing is published yet.", mend="`warehouse run` builds and publishes the marts")
    with duckdb.connect(str(read_copy), read_only=True) as connection:
        connection.execute("SET allowed_directories = $folders", {"folders": [str(settings().published)]})
        connection.execute("SET enable_external_access = false")
        connection.execute(f"SET memory_limit = '{settings().memory_limit}'")
        connection.execute("SET lock_configuration = true")
        try:
            statements = connection.extract_statements(sql)
            if len(statements) != 1 or statements[0].type not in (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN):
                raise UsageError("only one statement that reads is allowed.", mend='write one SELECT, for example "SELECT * FROM marts.daily_revenue"')
            result = connection.execute(sql)
            return [column[0] for column in result.description or []], result.fetchmany(limit)
        except duckdb.Error as error:
            mend = "the marts and their columns: SELECT * FROM information_schema.columns"
            raise UsageError(f"the query cannot be run: {scrub(str(error))}", mend=mend) from None
