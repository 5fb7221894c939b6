MODEL (
  name marts.subscription_retention,
  kind FULL,
  owner data,
  grain (month, currency),
  description 'Of the customers who had MRR when a UTC month began, how many and how much was left when it ended, per currency. New and reactivated customers are no part of it. The running month is not over: its rates only fall until it is.',
  column_descriptions (
    month = 'First day of the UTC month.',
    currency = 'ISO 4217 code of the amounts, upper case; never add rows of different currencies.',
    opening_customers = 'Customers with MRR at the end of the month before.',
    churned_customers = 'Those of them without MRR at the end of the month.',
    opening_mrr = 'Their MRR at the end of the month before.',
    expansion_mrr = 'What the MRR of those that rose, rose by.',
    contraction_mrr = 'What the MRR of those that fell to more than nothing, fell by.',
    churn_mrr = 'The opening MRR of those churned.',
    is_month_over = 'Whether the newest load is of a later month.',
    customer_churn_rate = 'Churned customers divided by opening customers, 0 to 1; null without any.',
    mrr_churn_rate = 'Churned MRR divided by opening MRR, 0 to 1; null without any.',
    gross_revenue_retention = 'Opening MRR less contraction and churn, divided by opening MRR, 0 to 1; null without any.',
    net_revenue_retention = 'Opening MRR less contraction and churn plus expansion, divided by opening MRR; above 1 where expansion outweighs; null without any.'
  ),
  audits (
    not_null(columns := (month, currency, opening_customers, churned_customers, opening_mrr)),
    unique_combination_of_columns(columns := (month, currency)),
    forall(criteria := gross_revenue_retention BETWEEN 0 AND 1),
    not_in_the_future(day := month),
    retention_matches_movements
  )
);

WITH newest AS (
  SELECT
    DATE_TRUNC('MONTH', MAX(known_until))::DATE AS month
  FROM marts.subscription_history
), totals AS (
  SELECT
    month,
    currency,
    COUNT(*) FILTER(WHERE
      start_mrr > 0) AS opening_customers,
    COUNT(*) FILTER(WHERE
      churn_mrr > 0) AS churned_customers,
    SUM(start_mrr) AS opening_mrr,
    SUM(expansion_mrr) AS expansion_mrr,
    SUM(contraction_mrr) AS contraction_mrr,
    SUM(churn_mrr) AS churn_mrr
  FROM marts.mrr_movements
  GROUP BY
    month,
    currency
)
SELECT
  totals.month::DATE AS month,
  totals.currency::TEXT AS currency,
  totals.opening_customers::BIGINT AS opening_customers,
  totals.churned_customers::BIGINT AS churned_customers,
  totals.opening_mrr::DECIMAL(38, 6) AS opening_mrr,
  totals.expansion_mrr::DECIMAL(38, 6) AS expansion_mrr,
  totals.contraction_mrr::DECIMAL(38, 6) AS contraction_mrr,
  totals.churn_mrr::DECIMAL(38, 6) AS churn_mrr,
  (
    totals.month < newest.month
  )::BOOLEAN AS is_month_over,
  ROUND(totals.churned_customers / NULLIF(totals.opening_customers, 0), 6)::DECIMAL(38, 6) AS customer_churn_rate,
  ROUND(totals.churn_mrr / NULLIF(totals.opening_mrr, 0), 6)::DECIMAL(38, 6) AS mrr_churn_rate,
  ROUND(
    (
      totals.opening_mrr - totals.contraction_mrr - totals.churn_mrr
    ) / NULLIF(totals.opening_mrr, 0),
    6
  )::DECIMAL(38, 6) AS gross_revenue_retention,
  ROUND(
    (
      totals.opening_mrr + totals.expansion_mrr - totals.contraction_mrr - totals.churn_mrr
    ) / NULLIF(totals.opening_mrr, 0),
    6
  )::DECIMAL(38, 6) AS net_revenue_retention
FROM totals
CROSS JOIN newest
