AUDIT (
  name cohorts_hold_every_customer
);

/* In its first month every customer of a cohort is active, and the cohorts together hold every customer once. */
SELECT
  cohort_month
FROM @this_model
WHERE
  months_since_first = 0 AND active_customers <> cohort_size
UNION ALL
SELECT
  NULL AS cohort_month
FROM (
  SELECT
    COALESCE(SUM(cohort_size), 0) AS customers
  FROM @this_model
  WHERE
    months_since_first = 0
) AS cohorts
WHERE
  customers IS DISTINCT FROM (
    SELECT
      COUNT(DISTINCT user_id)
    FROM marts.order_facts
  )
