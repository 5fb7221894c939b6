AUDIT (
  name orders_match_staging
);

/* After every build the facts hold all that raw holds: same orders, units and revenue, per currency. */
WITH facts AS (
  SELECT
    currency,
    COUNT(*) AS orders,
    SUM(quantity) AS units,
    SUM(revenue) AS revenue,
    MAX(loaded_at) AS loaded_at
  FROM @this_model
  GROUP BY
    currency
), staged AS (
  SELECT
    currency,
    COUNT(*) AS orders,
    SUM(quantity) AS units,
    SUM(revenue) AS revenue,
    MAX(loaded_at) AS loaded_at
  FROM staging.stg_postgres__orders
  WHERE
    deleted_at IS NULL
  GROUP BY
    currency
)
SELECT
  *
FROM facts
FULL OUTER JOIN staged
  ON facts.currency IS NOT DISTINCT FROM staged.currency
WHERE
  facts.orders IS DISTINCT FROM staged.orders
  OR facts.units IS DISTINCT FROM staged.units
  OR facts.revenue IS DISTINCT FROM staged.revenue
  OR facts.loaded_at IS DISTINCT FROM staged.loaded_at
