MODEL (
  name marts.date_dim,
  kind FULL,
  owner data,
  grain date,
  description 'Every day from the first order, payment, ticket or sign-up held to the end of the year after the newest load of these, one row each; a report joins it to show days on which nothing happened. Made of what is loaded, not of a clock: the same data gives the same days whenever it is built. What a day is called, not in which time zone it lies: use it with order days and report days alike.',
  column_descriptions (
    date = 'The calendar day.',
    year = 'Calendar year.',
    quarter = 'First day of the calendar quarter.',
    month = 'First day of the calendar month.',
    iso_year = 'Year of the ISO 8601 week, which around New Year is another than the calendar''s.',
    iso_week = 'ISO 8601 week, 1 to 53: it begins on a Monday, week 1 is that of the first Thursday.',
    week = 'Monday of the ISO week.',
    weekday = 'Day of the week, 1 for Monday to 7 for Sunday.',
    weekday_name = 'English name of the day of the week.',
    is_weekend = 'Whether it is a Saturday or a Sunday.',
    fiscal_year = 'Fiscal year, named for the calendar year in which it ends; it begins in the month that config.yaml declares (fiscal_year_first_month).',
    fiscal_quarter = 'Quarter of the fiscal year, 1 to 4.'
  ),
  audits (
    not_null(columns := (date, year, iso_year, iso_week, weekday, fiscal_year)),
    unique_values(columns := date),
    no_day_is_missing
  )
);

WITH tickets AS (
  SELECT
    *
  FROM staging.stg_zendesk__tickets
), happened AS (
  SELECT
    order_date AS date,
    loaded_at
  FROM marts.order_facts
  UNION ALL
  SELECT
    signup_date,
    loaded_at
  FROM marts.user_dim_history
  UNION ALL
  SELECT
    created_date,
    loaded_at
  FROM marts.payment_facts
  UNION ALL
  SELECT
    created_at::DATE,
    loaded_at
  FROM tickets
), bounds AS (
  SELECT
    MIN(date) AS first_day,
    (
      DATE_TRUNC('YEAR', MAX(loaded_at)) + INTERVAL '2' YEAR - INTERVAL '1' DAY
    )::DATE AS last_day
  FROM happened
), days AS (
  SELECT
    UNNEST(GENERATE_SERIES(first_day, last_day, INTERVAL '1' DAY))::DATE AS date
  FROM bounds
), shifted AS (
  SELECT
    date,
    (
      DATE_TRUNC('MONTH', date) + INTERVAL '1' MONTH * (
        (
          13 - @fiscal_year_first_month
        ) % 12
      )
    )::DATE AS fiscal_date
  FROM days
)
SELECT
  date::DATE AS date,
  YEAR(date)::INT AS year,
  DATE_TRUNC('QUARTER', date)::DATE AS quarter,
  DATE_TRUNC('MONTH', date)::DATE AS month,
  ISOYEAR(date)::INT AS iso_year,
  WEEK(date)::INT AS iso_week,
  DATE_TRUNC('WEEK', date)::DATE AS week,
  ISODOW(date)::INT AS weekday,
  DAYNAME(date)::TEXT AS weekday_name,
  (
    ISODOW(date) >= 6
  )::BOOLEAN AS is_weekend,
  YEAR(fiscal_date)::INT AS fiscal_year,
  QUARTER(fiscal_date)::INT AS fiscal_quarter
FROM shifted
