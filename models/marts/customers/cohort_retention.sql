MODEL (
  name marts.cohort_retention,
  kind FULL,
  owner data,
  grain (cohort_month, months_since_first),
  description 'Customers by the month of their first order, and how many of them ordered again in each later month. Every month up to the last one held has a row, also when nobody ordered.',
  column_descriptions (
    cohort_month = 'First day of the UTC month in which the customers ordered for the first time.',
    months_since_first = 'Calendar months since the cohort month; 0 is the cohort month itself.',
    cohort_size = 'Number of customers of the cohort.',
    active_customers = 'Number of them who ordered in that month.',
    retention_rate = 'Active customers divided by the size of the cohort, 0 to 1.'
  ),
  audits (
    not_null(
      columns := (cohort_month, months_since_first, cohort_size, active_customers, retention_rate)
    ),
    unique_combination_of_columns(columns := (cohort_month, months_since_first)),
    forall(criteria := retention_rate BETWEEN 0 AND 1),
    cohorts_hold_every_customer
  )
);

WITH customer_months AS (
  SELECT DISTINCT
    user_id,
    DATE_TRUNC('MONTH', order_date) AS order_month
  FROM marts.order_facts
), cohorts AS (
  SELECT
    user_id,
    MIN(order_month) AS cohort_month
  FROM customer_months
  GROUP BY
    user_id
), cohort_sizes AS (
  SELECT
    cohort_month,
    COUNT(*) AS cohort_size
  FROM cohorts
  GROUP BY
    cohort_month
), months AS (
  SELECT
    UNNEST(
      GENERATE_SERIES(
        (
          SELECT
            MIN(order_month)
          FROM customer_months
        ),
        (
          SELECT
            MAX(order_month)
          FROM customer_months
        ),
        INTERVAL '1' MONTH
      )
    )::DATE AS activity_month
), active AS (
  SELECT
    c.cohort_month,
    m.order_month,
    COUNT(*) AS active_customers
  FROM customer_months AS m
  INNER JOIN cohorts AS c
    ON c.user_id = m.user_id
  GROUP BY
    c.cohort_month,
    m.order_month
)
SELECT
  s.cohort_month::DATE AS cohort_month,
  DATE_DIFF('MONTH', s.cohort_month, m.activity_month)::INT AS months_since_first,
  s.cohort_size::BIGINT AS cohort_size,
  COALESCE(a.active_customers, 0)::BIGINT AS active_customers,
  ROUND(COALESCE(a.active_customers, 0) / s.cohort_size, 6)::DECIMAL(9, 6) AS retention_rate
FROM cohort_sizes AS s
INNER JOIN months AS m
  ON m.activity_month >= s.cohort_month
LEFT JOIN active AS a
  ON a.cohort_month = s.cohort_month AND a.order_month = m.activity_month
