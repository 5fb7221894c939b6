MODEL (
  name marts.exchange_rates,
  kind SEED (
    path 'exchange_rates.csv'
  ),
  owner data,
  ignored_rules ['nomissingunittest'],
  grain (currency, reporting_currency, valid_from),
  columns (
    valid_from DATE,
    currency TEXT,
    reporting_currency TEXT,
    rate DECIMAL(18, 10)
  ),
  description 'The declared exchange rates (exchange_rates.csv beside this model): from a day until the next one declared for the same two currencies.',
  column_descriptions (
    valid_from = 'First day on which the rate counts.',
    currency = 'ISO 4217 code of what is converted, upper case.',
    reporting_currency = 'ISO 4217 code of what it is converted to, upper case.',
    rate = 'So many units of the reporting currency are one unit of the currency.'
  ),
  audits (
    not_null(columns := (valid_from, currency, reporting_currency, rate)),
    unique_combination_of_columns(columns := (currency, reporting_currency, valid_from)),
    rate_is_positive
  )
)
