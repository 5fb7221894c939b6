MODEL (
  name marts.daily_revenue,
  kind FULL,
  owner data,
  grain (date, currency),
  description 'Orders and their revenue per UTC day and currency; days without orders have no row.',
  column_descriptions (
    date = 'UTC day on which the orders were placed.',
    currency = 'ISO 4217 code of the revenue; never add rows of different currencies.',
    orders = 'Number of orders placed that day.',
    units = 'Units ordered that day.',
    customers = 'Number of distinct users who ordered that day.',
    revenue = 'Sum of the revenue of the orders placed that day.'
  ),
  audits (
    not_null(columns := (date, currency, revenue)),
    unique_combination_of_columns(columns := (date, currency)),
    amount_is_valid(amount := revenue),
    not_in_the_future(day := date),
    totals_match_order_facts
  )
);

SELECT
  order_date::DATE AS date,
  currency::TEXT AS currency,
  COUNT(*)::BIGINT AS orders,
  SUM(quantity)::BIGINT AS units,
  COUNT(DISTINCT user_id)::BIGINT AS customers,
  SUM(revenue)::DECIMAL(18, 2) AS revenue
FROM marts.order_facts
GROUP BY
  order_date,
  currency
