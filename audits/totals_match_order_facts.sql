AUDIT (
  name totals_match_order_facts
);

/* A mart that sums orders must sum to the same as the facts, per currency, to the cent. It may hold currencies without orders. */
WITH here AS (
  SELECT
    currency,
    SUM(orders) AS orders,
    SUM(revenue) AS revenue
  FROM @this_model
  GROUP BY
    currency
  HAVING
    SUM(orders) <> 0 OR SUM(revenue) <> 0
), facts AS (
  SELECT
    currency,
    COUNT(*) AS orders,
    SUM(revenue) AS revenue
  FROM marts.order_facts
  GROUP BY
    currency
)
SELECT
  *
FROM here
FULL OUTER JOIN facts
  ON here.currency IS NOT DISTINCT FROM facts.currency
WHERE
  here.orders IS DISTINCT FROM facts.orders
  OR here.revenue IS DISTINCT FROM facts.revenue
