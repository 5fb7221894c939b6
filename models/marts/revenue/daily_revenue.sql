MODEL (
  name marts.daily_revenue,
  kind FULL,
  owner data,
  grain (date, currency),
  depends_on (
    staging.stg_stripe__balance_transactions,
    staging.stg_stripe__charges,
    staging.stg_stripe__refunds
  ),
  description 'Orders and their revenue per UTC day and currency, and beside them what happened at Stripe, each amount in the row of its own currency and of the day on which it happened. Days without either have no row. Orders and payments are two accounts of the same sales: never add them.',
  column_descriptions (
    date = 'UTC day on which the orders were placed; for what happened at Stripe, the day in the report''s time zone (UTC unless declared otherwise).',
    currency = 'ISO 4217 code of the amounts; never add rows of different currencies.',
    orders = 'Number of orders placed that day.',
    units = 'Units ordered that day.',
    customers = 'Number of distinct users who ordered that day.',
    revenue = 'Sum of the revenue of the orders placed that day.',
    payments = 'What was taken by charges made that day, in the currency of the charge.',
    refunds = 'What was given back by refunds made that day, whenever their charge was made, in the currency of the refund; positive.',
    disputes = 'What banks took that day for disputes, less what they gave back, in the currency of the dispute; negative on a day on which more came back.',
    fees = 'What Stripe took that day, less what it gave back, in the currency in which the account is paid.',
    net = 'By how much charges, refunds, disputes, adjustments and fees changed the balance that day, in the currency in which the account is paid. Payouts, transfers, top-ups and loans are not in it.'
  ),
  audits (
    not_null(columns := (date, currency, revenue, payments, refunds, disputes, fees, net)),
    unique_combination_of_columns(columns := (date, currency)),
    amount_is_valid(amount := revenue),
    amount_is_valid(amount := payments),
    amount_is_valid(amount := refunds),
    not_after_the_report_day(day := date),
    totals_match_order_facts,
    totals_match_stripe
  )
);

WITH ordered AS (
  SELECT
    order_date AS date,
    currency,
    COUNT(*) AS orders,
    SUM(quantity) AS units,
    COUNT(DISTINCT user_id) AS customers,
    SUM(revenue) AS revenue
  FROM marts.order_facts
  GROUP BY
    order_date,
    currency
), taken AS (
  SELECT
    @report_date(created_at) AS date,
    currency,
    amount_captured AS payments,
    0 AS refunds,
    0 AS disputes,
    0 AS fees,
    0 AS net
  FROM marts.payment_facts
  WHERE
    status = 'succeeded' AND amount_captured > 0
), given_back AS (
  SELECT
    report_date AS date,
    currency,
    0 AS payments,
    amount AS refunds,
    0 AS disputes,
    0 AS fees,
    0 AS net
  FROM marts.refund_facts
  WHERE
    moved_balance
), disputed AS (
  SELECT
    movements.report_date AS date,
    COALESCE(disputes.currency, movements.currency) AS currency,
    0 AS payments,
    0 AS refunds,
    CASE
      WHEN COALESCE(disputes.currency, movements.currency) = movements.currency
      THEN -movements.amount
      WHEN movements.amount < 0
      THEN disputes.amount
      ELSE -disputes.amount
    END AS disputes,
    0 AS fees,
    0 AS net
  FROM marts.balance_transaction_facts AS movements
  LEFT JOIN marts.dispute_facts AS disputes
    ON disputes.dispute_id = movements.source_id
  WHERE
    movements.category = 'disputes'
), settled AS (
  SELECT
    report_date AS date,
    currency,
    0 AS payments,
    0 AS refunds,
    0 AS disputes,
    fee - CASE WHEN category = 'fees' THEN amount ELSE 0 END AS fees,
    CASE
      WHEN category IN ('charges', 'charge_failures', 'refunds', 'disputes', 'adjustments', 'fees')
      THEN amount
      ELSE 0
    END - fee AS net
  FROM marts.balance_transaction_facts
  WHERE
    category IN ('charges', 'charge_failures', 'refunds', 'disputes', 'adjustments', 'fees')
    OR fee <> 0
), at_stripe AS (
  SELECT
    date,
    currency,
    SUM(payments) AS payments,
    SUM(refunds) AS refunds,
    SUM(disputes) AS disputes,
    SUM(fees) AS fees,
    SUM(net) AS net
  FROM (
    SELECT
      date,
      currency,
      payments,
      refunds,
      disputes,
      fees,
      net
    FROM taken
    UNION ALL
    SELECT
      date,
      currency,
      payments,
      refunds,
      disputes,
      fees,
      net
    FROM given_back
    UNION ALL
    SELECT
      date,
      currency,
      payments,
      refunds,
      disputes,
      fees,
      net
    FROM disputed
    UNION ALL
    SELECT
      date,
      currency,
      payments,
      refunds,
      disputes,
      fees,
      net
    FROM settled
  ) AS happened
  GROUP BY
    date,
    currency
)
SELECT
  COALESCE(ordered.date, at_stripe.date)::DATE AS date,
  COALESCE(ordered.currency, at_stripe.currency)::TEXT AS currency,
  COALESCE(ordered.orders, 0)::BIGINT AS orders,
  COALESCE(ordered.units, 0)::BIGINT AS units,
  COALESCE(ordered.customers, 0)::BIGINT AS customers,
  COALESCE(ordered.revenue, 0)::DECIMAL(18, 2) AS revenue,
  COALESCE(at_stripe.payments, 0)::DECIMAL(38, 3) AS payments,
  COALESCE(at_stripe.refunds, 0)::DECIMAL(38, 3) AS refunds,
  COALESCE(at_stripe.disputes, 0)::DECIMAL(38, 3) AS disputes,
  COALESCE(at_stripe.fees, 0)::DECIMAL(38, 3) AS fees,
  COALESCE(at_stripe.net, 0)::DECIMAL(38, 3) AS net
FROM ordered
FULL OUTER JOIN at_stripe
  ON at_stripe.date = ordered.date AND at_stripe.currency = ordered.currency
