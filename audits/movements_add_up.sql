AUDIT (
  name movements_add_up
);

/* In each row start + new + expansion + reactivation - contraction - churn = end, no part is negative, and the end is the start of the customer's next month; per currency and month the ends are the MRR of all subscriptions. */
SELECT
  month
FROM @this_model
WHERE
  start_mrr + new_mrr + expansion_mrr + reactivation_mrr - contraction_mrr - churn_mrr <> end_mrr
  OR LEAST(start_mrr, new_mrr, expansion_mrr, contraction_mrr, churn_mrr, reactivation_mrr, end_mrr) < 0
UNION ALL
SELECT
  COALESCE(later.month, earlier.month) AS month
FROM @this_model AS earlier
FULL OUTER JOIN @this_model AS later
  ON later.customer_id = earlier.customer_id
  AND later.currency = earlier.currency
  AND later.month = (
    earlier.month + INTERVAL '1' MONTH
  )::DATE
WHERE
  COALESCE(earlier.end_mrr, 0) <> COALESCE(later.start_mrr, 0)
  AND (
    NOT later.month IS NULL
    OR earlier.month < (
      SELECT
        DATE_TRUNC('MONTH', MAX(known_until))::DATE
      FROM marts.subscription_history
    )
  )
UNION ALL
SELECT
  COALESCE(ends.month, held.month) AS month
FROM (
  SELECT
    currency,
    month,
    SUM(end_mrr) AS mrr
  FROM @this_model
  GROUP BY
    currency,
    month
) AS ends
FULL OUTER JOIN (
  SELECT
    currency,
    month,
    SUM(mrr) AS mrr
  FROM marts.mrr_by_subscription_month
  GROUP BY
    currency,
    month
) AS held
  ON held.currency = ends.currency AND held.month = ends.month
WHERE
  COALESCE(ends.mrr, 0) <> COALESCE(held.mrr, 0)
