MODEL (
  name marts.customer_lifetime_value,
  kind FULL,
  owner data,
  grain (user_id, currency),
  depends_on (
    staging.stg_postgres__users
  ),
  references user_id,
  description 'What each customer has bought so far, per currency; what the customer will buy is in marts.customer_predictions. Recency, frequency and T follow the customer-base literature: purchases of one day count once, and the observation ends on the last order day held.',
  column_descriptions (
    user_id = 'Key of the user; see marts.user_dim.',
    currency = 'ISO 4217 code of the amounts; never add rows of different currencies.',
    revenue = 'Sum of the revenue of all orders of the customer.',
    orders = 'Number of orders of the customer.',
    margin = 'What is left of the revenue after the cost of what was sold: revenue times the share that config.yaml declares (gross_margin), rounded to cents; null where none is declared.',
    average_order_value = 'Revenue divided by orders, rounded to cents.',
    repeat_revenue = 'Revenue of the orders of all days after the first purchase day.',
    first_order_date = 'UTC day of the first order.',
    last_order_date = 'UTC day of the last order.',
    frequency = 'Number of days with a purchase, less the first one.',
    recency = 'Days between the first and the last purchase day.',
    t = 'Days between the first purchase day and the end of the observation (the age of the customer).'
  ),
  audits (
    not_null(columns := (user_id, currency, revenue)),
    unique_combination_of_columns(columns := (user_id, currency)),
    amount_is_valid(amount := revenue),
    reference_exists(key := user_id, parent := staging.stg_postgres__users, parent_key := user_id),
    totals_match_order_facts
  )
);

WITH observed_orders AS (
  SELECT
    user_id,
    currency,
    order_date,
    revenue,
    order_date > MIN(order_date) OVER (PARTITION BY user_id, currency) AS is_repeated
  FROM marts.order_facts
), observation AS (
  SELECT
    MAX(order_date) AS end_date
  FROM observed_orders
)
/* A quotient is binary: the average is made a decimal before it is rounded, or 2.01 / 2 would become 1.00. */
SELECT
  o.user_id::BIGINT AS user_id,
  o.currency::TEXT AS currency,
  SUM(o.revenue)::DECIMAL(18, 2) AS revenue,
  COUNT(*)::BIGINT AS orders,
  ROUND((
    SUM(o.revenue) * @gross_margin
  )::DECIMAL(38, 8), 2)::DECIMAL(18, 2) AS margin,
  ROUND((
    SUM(o.revenue) / COUNT(*)
  )::DECIMAL(38, 8), 2)::DECIMAL(18, 2) AS average_order_value,
  COALESCE(SUM(o.revenue) FILTER(WHERE
    o.is_repeated), 0)::DECIMAL(18, 2) AS repeat_revenue,
  MIN(o.order_date)::DATE AS first_order_date,
  MAX(o.order_date)::DATE AS last_order_date,
  (
    COUNT(DISTINCT o.order_date) - 1
  )::INT AS frequency,
  DATE_DIFF('DAY', MIN(o.order_date), MAX(o.order_date))::INT AS recency,
  DATE_DIFF('DAY', MIN(o.order_date), MAX(observation.end_date))::INT AS t
FROM observed_orders AS o
CROSS JOIN observation
GROUP BY
  o.user_id,
  o.currency
