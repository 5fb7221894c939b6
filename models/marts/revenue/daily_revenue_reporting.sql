MODEL (
  name marts.daily_revenue_reporting,
  kind FULL,
  owner data,
  grain date,
  description 'marts.daily_revenue in the one reporting currency that config.yaml declares, by the rates of marts.exchange_rates. Where a rate is missing, each amount that needs it is null and the currency is counted: a sum is whole or not there.',
  column_descriptions (
    date = 'Day, as in marts.daily_revenue.',
    reporting_currency = 'ISO 4217 code of the amounts.',
    currencies = 'Currencies in which something happened that day.',
    currencies_without_rate = 'Those of them that have no rate on that day: declare it in models/marts/revenue/exchange_rates.csv.',
    revenue = 'Revenue of the orders of the day.',
    payments = 'What was taken by charges made that day.',
    refunds = 'What was given back that day.',
    disputes = 'What banks took that day for disputes, less what they gave back.',
    fees = 'What Stripe took that day, less what it gave back.',
    net = 'By how much charges, refunds, disputes, adjustments and fees changed the balance that day.'
  ),
  audits (
    not_null(columns := (date, reporting_currency, currencies, currencies_without_rate)),
    unique_values(columns := date),
    days_match_daily_revenue
  )
);

WITH dated AS (
  SELECT
    currency,
    valid_from,
    rate,
    LEAD(valid_from) OVER (PARTITION BY currency ORDER BY valid_from) AS valid_to
  FROM marts.exchange_rates
  WHERE
    reporting_currency = @reporting_currency
), rated AS (
  SELECT
    days.date,
    days.revenue,
    days.payments,
    days.refunds,
    days.disputes,
    days.fees,
    days.net,
    CASE WHEN days.currency = @reporting_currency THEN 1 ELSE dated.rate END::DECIMAL(18, 10) AS rate
  FROM marts.daily_revenue AS days
  LEFT JOIN dated
    ON dated.currency = days.currency
    AND dated.valid_from <= days.date
    AND (
      dated.valid_to IS NULL OR days.date < dated.valid_to
    )
)
SELECT
  date::DATE AS date,
  @reporting_currency::TEXT AS reporting_currency,
  COUNT(*)::BIGINT AS currencies,
  COUNT(*) FILTER(WHERE
    rate IS NULL)::BIGINT AS currencies_without_rate,
  CASE
    WHEN COUNT(*) FILTER(WHERE
      rate IS NULL AND revenue <> 0) = 0
    THEN COALESCE(SUM(revenue::DECIMAL(20, 3) * rate), 0)
  END::DECIMAL(38, 3) AS revenue,
  CASE
    WHEN COUNT(*) FILTER(WHERE
      rate IS NULL AND payments <> 0) = 0
    THEN COALESCE(SUM(payments::DECIMAL(20, 3) * rate), 0)
  END::DECIMAL(38, 3) AS payments,
  CASE
    WHEN COUNT(*) FILTER(WHERE
      rate IS NULL AND refunds <> 0) = 0
    THEN COALESCE(SUM(refunds::DECIMAL(20, 3) * rate), 0)
  END::DECIMAL(38, 3) AS refunds,
  CASE
    WHEN COUNT(*) FILTER(WHERE
      rate IS NULL AND disputes <> 0) = 0
    THEN COALESCE(SUM(disputes::DECIMAL(20, 3) * rate), 0)
  END::DECIMAL(38, 3) AS disputes,
  CASE
    WHEN COUNT(*) FILTER(WHERE
      rate IS NULL AND fees <> 0) = 0
    THEN COALESCE(SUM(fees::DECIMAL(20, 3) * rate), 0)
  END::DECIMAL(38, 3) AS fees,
  CASE
    WHEN COUNT(*) FILTER(WHERE
      rate IS NULL AND net <> 0) = 0
    THEN COALESCE(SUM(net::DECIMAL(20, 3) * rate), 0)
  END::DECIMAL(38, 3) AS net
FROM rated
GROUP BY
  date
