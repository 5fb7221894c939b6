MODEL (
  name marts.mrr_by_subscription_month,
  kind FULL,
  owner data,
  grain (subscription_id, currency, month),
  description 'What each subscription was worth a month at the end of each UTC month, from the month in which it was made to the one in which it ended or, if it has not, the one of the newest load; of that month, what it is worth now. Never a later month.',
  column_descriptions (
    subscription_id = 'Stripe''s id of the subscription; see marts.subscription_facts.',
    customer_id = 'Customer who subscribed; the subscription itself where there is none.',
    currency = 'ISO 4217 code of the MRR, upper case; never add rows of different currencies.',
    month = 'First day of the UTC month.',
    mrr = 'MRR just before the next month began, by the rule of marts.subscription_history; 0 when it did not count then.',
    quantity = 'Units of its items then.',
    basis = 'How it is known; see marts.subscription_history.'
  ),
  audits (
    not_null(columns := (subscription_id, customer_id, currency, month, mrr)),
    unique_combination_of_columns(columns := (subscription_id, currency, month)),
    amount_is_valid(amount := mrr),
    not_in_the_future(day := month),
    months_match_history
  )
);

WITH spans AS (
  SELECT
    subscription_id,
    customer_id,
    currency,
    mrr,
    quantity,
    basis,
    DATE_TRUNC('MONTH', valid_from) AS first_month,
    CASE
      WHEN NOT valid_to IS NULL
      THEN DATE_TRUNC('MONTH', valid_to) - INTERVAL '1' MONTH
      WHEN basis = 'end'
      THEN DATE_TRUNC('MONTH', valid_from)
      ELSE DATE_TRUNC('MONTH', known_until)
    END AS last_month
  FROM marts.subscription_history
), months AS (
  SELECT
    subscription_id,
    customer_id,
    currency,
    mrr,
    quantity,
    basis,
    UNNEST(GENERATE_SERIES(first_month, last_month, INTERVAL '1' MONTH)) AS month
  FROM spans
)
SELECT
  subscription_id::TEXT AS subscription_id,
  customer_id::TEXT AS customer_id,
  currency::TEXT AS currency,
  month::DATE AS month,
  mrr::DECIMAL(38, 6) AS mrr,
  quantity::BIGINT AS quantity,
  basis::TEXT AS basis
FROM months
