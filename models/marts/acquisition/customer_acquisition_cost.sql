MODEL (
  name marts.customer_acquisition_cost,
  kind FULL,
  owner data,
  grain (month, source, medium),
  description 'What each source and medium cost and whom it won, one row a month in which it did either. A new customer counts in the month of the first order and for the click that marts.attribution credits it to; where nothing is known of it, for (unknown). Cost is null, never 0, where no spend is declared. For all sources together, divide the sum of the spend by the sum of the new customers.',
  column_descriptions (
    month = 'First day of the month, by the days of the report''s time zone; for spend, by the declared day.',
    source = 'Source credited with the first order, as in marts.attribution; (unknown) where Google Analytics did not see it.',
    medium = 'Medium credited with it; (unknown) likewise.',
    new_customers = 'Users whose first order was placed in this month.',
    reporting_currency = 'ISO 4217 code of the amounts.',
    spend = 'What was declared as spent, converted by the rate of its day; null where nothing was declared, or a rate is missing.',
    spend_without_rate = 'Declared amounts that have no rate on their day: declare it in models/marts/revenue/exchange_rates.csv.',
    cost_per_customer = 'Spend divided by new customers (CAC), rounded to three decimals; null where either is missing.'
  ),
  audits (
    not_null(
      columns := (month, source, medium, new_customers, reporting_currency, spend_without_rate)
    ),
    unique_combination_of_columns(columns := (month, source, medium)),
    customers_and_spend_are_whole
  )
);

WITH firsts AS (
  SELECT
    user_id,
    ARG_MIN(order_id, (ordered_at, order_id)) AS order_id,
    MIN(ordered_at) AS ordered_at
  FROM marts.order_facts
  GROUP BY
    user_id
), won AS (
  SELECT
    DATE_TRUNC('MONTH', @report_date(firsts.ordered_at))::DATE AS month,
    COALESCE(attribution.source, '(unknown)') AS source,
    COALESCE(attribution.medium, '(unknown)') AS medium,
    COUNT(*) AS new_customers
  FROM firsts
  LEFT JOIN marts.attribution AS attribution
    ON attribution.order_id = firsts.order_id
  GROUP BY
    1,
    2,
    3
), rates AS (
  SELECT
    currency,
    valid_from,
    rate,
    LEAD(valid_from) OVER (PARTITION BY currency ORDER BY valid_from) AS valid_to
  FROM marts.exchange_rates
  WHERE
    reporting_currency = @reporting_currency
), paid AS (
  SELECT
    DATE_TRUNC('MONTH', spent.date)::DATE AS month,
    spent.source,
    spent.medium,
    COUNT(*) FILTER(WHERE
      spent.currency <> @reporting_currency AND rates.rate IS NULL) AS spend_without_rate,
    SUM(
      spent.spend::DECIMAL(20, 3) * CASE WHEN spent.currency = @reporting_currency THEN 1 ELSE rates.rate END::DECIMAL(18, 10)
    ) AS spend
  FROM marts.marketing_spend AS spent
  LEFT JOIN rates
    ON rates.currency = spent.currency
    AND rates.valid_from <= spent.date
    AND (
      rates.valid_to IS NULL OR spent.date < rates.valid_to
    )
  GROUP BY
    1,
    2,
    3
), joined AS (
  SELECT
    COALESCE(won.month, paid.month) AS month,
    COALESCE(won.source, paid.source) AS source,
    COALESCE(won.medium, paid.medium) AS medium,
    COALESCE(won.new_customers, 0) AS new_customers,
    COALESCE(paid.spend_without_rate, 0) AS spend_without_rate,
    CASE WHEN paid.spend_without_rate = 0 THEN paid.spend END AS spend
  FROM won
  FULL OUTER JOIN paid
    ON paid.month = won.month AND paid.source = won.source AND paid.medium = won.medium
)
SELECT
  month::DATE AS month,
  source::TEXT AS source,
  medium::TEXT AS medium,
  new_customers::BIGINT AS new_customers,
  @reporting_currency::TEXT AS reporting_currency,
  spend::DECIMAL(38, 3) AS spend,
  spend_without_rate::BIGINT AS spend_without_rate,
  ROUND((
    spend::DECIMAL(38, 3) / NULLIF(new_customers, 0)
  )::DECIMAL(38, 8), 3)::DECIMAL(38, 3) AS cost_per_customer
FROM joined
