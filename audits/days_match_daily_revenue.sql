AUDIT (
  name days_match_daily_revenue
);

/* Every day is there with each of its currencies, and revenue is missing only where a rate is. */
WITH days AS (
  SELECT
    date,
    COUNT(*) AS currencies
  FROM marts.daily_revenue
  GROUP BY
    date
), here AS (
  SELECT
    date,
    currencies,
    currencies_without_rate,
    revenue,
    payments,
    refunds,
    disputes,
    fees,
    net
  FROM @this_model
)
SELECT
  *
FROM here
FULL OUTER JOIN days
  ON days.date = here.date
WHERE
  here.currencies IS DISTINCT FROM days.currencies
  OR (
    here.currencies_without_rate = 0
    AND (
      here.revenue IS NULL
      OR here.payments IS NULL
      OR here.refunds IS NULL
      OR here.disputes IS NULL
      OR here.fees IS NULL
      OR here.net IS NULL
    )
  )
