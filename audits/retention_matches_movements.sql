AUDIT (
  name retention_matches_movements
);

/* Per month and currency the opening MRR is what the movements start with, and what is left of it what they end with, without new and reactivated customers. */
SELECT
  COALESCE(held.month, moved.month) AS month
FROM @this_model AS held
FULL OUTER JOIN (
  SELECT
    month,
    currency,
    SUM(start_mrr) AS opening_mrr,
    SUM(end_mrr - new_mrr - reactivation_mrr) AS left_mrr
  FROM marts.mrr_movements
  GROUP BY
    month,
    currency
) AS moved
  ON moved.month = held.month AND moved.currency = held.currency
WHERE
  held.opening_mrr IS DISTINCT FROM moved.opening_mrr
  OR held.opening_mrr + held.expansion_mrr - held.contraction_mrr - held.churn_mrr IS DISTINCT FROM moved.left_mrr
