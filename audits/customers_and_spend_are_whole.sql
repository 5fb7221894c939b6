AUDIT (
  name customers_and_spend_are_whole
);

/* Every user who ordered is new once, each month has what was declared for it and nothing else, and spend is missing only where a rate is. */
SELECT
  COUNT(*) AS months
FROM @this_model
HAVING
  COALESCE(SUM(new_customers), 0) <> (
    SELECT
      COUNT(DISTINCT user_id)
    FROM marts.order_facts
  )
  OR COUNT(*) FILTER(WHERE
    NOT spend IS NULL OR spend_without_rate > 0) <> (
    SELECT
      COUNT(DISTINCT (DATE_TRUNC('MONTH', date), source, medium))
    FROM marts.marketing_spend
  )
  OR COALESCE(SUM(spend) FILTER(WHERE
    spend_without_rate = 0) < 0, FALSE)
  OR COUNT(*) FILTER(WHERE
    NOT spend IS NULL AND spend_without_rate > 0) > 0
