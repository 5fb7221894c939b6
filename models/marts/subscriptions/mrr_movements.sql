MODEL (
  name marts.mrr_movements,
  kind FULL,
  owner data,
  grain (customer_id, currency, month),
  description 'How the MRR of each customer moved in each UTC month and currency: start + new + expansion + reactivation - contraction - churn = end. Only the balance of a month counts: who leaves and comes back within it did not move. Months with neither a start nor an end have no row; no month after the newest load.',
  column_descriptions (
    customer_id = 'Customer with all subscriptions in this currency.',
    currency = 'ISO 4217 code of the amounts, upper case; never add rows of different currencies.',
    month = 'First day of the UTC month.',
    start_mrr = 'MRR at the end of the month before.',
    new_mrr = 'MRR at the end of a customer who never had any at the end of a month before.',
    expansion_mrr = 'What the MRR of a customer who had some rose by.',
    contraction_mrr = 'What it fell by, to more than nothing; not negative.',
    churn_mrr = 'The MRR at the start of a customer who has none at the end; not negative.',
    reactivation_mrr = 'MRR at the end of a customer who had none at the start, but some at the end of an earlier month.',
    end_mrr = 'MRR at the end of the month; of the running month, now.'
  ),
  audits (
    not_null(
      columns := (
        customer_id,
        currency,
        month,
        start_mrr,
        new_mrr,
        expansion_mrr,
        contraction_mrr,
        churn_mrr,
        reactivation_mrr,
        end_mrr
      )
    ),
    unique_combination_of_columns(columns := (customer_id, currency, month)),
    not_in_the_future(day := month),
    movements_add_up
  )
);

WITH ends AS (
  SELECT
    customer_id,
    currency,
    month,
    SUM(mrr) AS mrr
  FROM marts.mrr_by_subscription_month
  GROUP BY
    customer_id,
    currency,
    month
  HAVING
    SUM(mrr) > 0
), newest AS (
  SELECT
    DATE_TRUNC('MONTH', MAX(known_until))::DATE AS month
  FROM marts.subscription_history
), neighbours AS (
  SELECT
    customer_id,
    currency,
    month,
    mrr,
    LAG(month) OVER each_customer AS earlier_month,
    LAG(mrr) OVER each_customer AS earlier_mrr,
    LEAD(month) OVER each_customer AS later_month
  FROM ends
  WINDOW each_customer AS (PARTITION BY customer_id, currency ORDER BY month)
), moved AS (
  SELECT
    customer_id,
    currency,
    month,
    CASE WHEN earlier_month + INTERVAL '1' MONTH = month THEN earlier_mrr ELSE 0 END AS start_mrr,
    NOT earlier_month IS NULL AS is_known,
    mrr AS end_mrr
  FROM neighbours
  UNION ALL
  SELECT
    neighbours.customer_id,
    neighbours.currency,
    (
      neighbours.month + INTERVAL '1' MONTH
    )::DATE,
    neighbours.mrr,
    TRUE,
    0
  FROM neighbours
  CROSS JOIN newest
  WHERE
    neighbours.month < newest.month
    AND neighbours.later_month IS DISTINCT FROM (
      neighbours.month + INTERVAL '1' MONTH
    )::DATE
)
SELECT
  customer_id::TEXT AS customer_id,
  currency::TEXT AS currency,
  month::DATE AS month,
  start_mrr::DECIMAL(38, 6) AS start_mrr,
  CASE WHEN start_mrr = 0 AND NOT is_known THEN end_mrr ELSE 0 END::DECIMAL(38, 6) AS new_mrr,
  CASE WHEN start_mrr > 0 THEN GREATEST(end_mrr - start_mrr, 0) ELSE 0 END::DECIMAL(38, 6) AS expansion_mrr,
  CASE WHEN end_mrr > 0 THEN GREATEST(start_mrr - end_mrr, 0) ELSE 0 END::DECIMAL(38, 6) AS contraction_mrr,
  CASE WHEN end_mrr = 0 THEN start_mrr ELSE 0 END::DECIMAL(38, 6) AS churn_mrr,
  CASE WHEN start_mrr = 0 AND is_known THEN end_mrr ELSE 0 END::DECIMAL(38, 6) AS reactivation_mrr,
  end_mrr::DECIMAL(38, 6) AS end_mrr
FROM moved
