MODEL (
  name staging.stg_stripe__prices,
  kind VIEW,
  owner data,
  grain price_id,
  description 'One row a price of a product, as Stripe last stated it, renamed and cast; deleted ones and those of the test mode too. Instants become naive UTC timestamps.',
  column_descriptions (
    price_id = 'Stripe''s id of the price.',
    product_id = 'Product that has this price; see stg_stripe__products.',
    nickname = 'Name of the price, seen by nobody else.',
    is_active = 'Whether it can be used for new purchases.',
    type = 'one_time or recurring.',
    billing_scheme = 'per_unit, or tiered: then there is no unit amount.',
    currency = 'ISO 4217 code of the price, upper case.',
    unit_amount_minor = 'Price of one unit; null where it has fractions of a minor unit; in minor units, as Stripe counts them.',
    unit_amount = 'Price of one unit; null where it has fractions of a minor unit; in the currency''s main unit.',
    unit_amount_minor_exact = 'Price of one unit in minor units, with fractions of one.',
    recurring_interval = 'Unit of the interval of a recurring price: day, week, month or year.',
    recurring_interval_count = 'How many of these units an interval has.',
    created_at = 'When Stripe made the price, UTC.',
    is_live = 'Whether it is real, not of the account''s test mode; marts read nothing else.',
    is_deleted = 'Whether it was deleted in Stripe; the other columns keep their last values.',
    deleted_at = 'When it was deleted, or first seen to be gone, UTC; null while it is there.',
    settled_at = 'As of when Stripe was asked for this state, UTC; an older state never replaces a newer one.',
    loaded_at = 'When this state was loaded, UTC; strictly rising from load to load.'
  ),
  audits (
    not_null(columns := (price_id, is_deleted, loaded_at)),
    unique_values(columns := price_id)
  )
);

SELECT
  id::TEXT AS price_id,
  product_id::TEXT AS product_id,
  nickname::TEXT AS nickname,
  active::BOOLEAN AS is_active,
  type::TEXT AS type,
  billing_scheme::TEXT AS billing_scheme,
  UPPER(currency)::TEXT AS currency,
  unit_amount::BIGINT AS unit_amount_minor,
  unit_amount_decimal::DECIMAL(38, 3) AS unit_amount,
  unit_amount_exact::DECIMAL(38, 12) AS unit_amount_minor_exact,
  recurring_interval::TEXT AS recurring_interval,
  recurring_interval_count::BIGINT AS recurring_interval_count,
  (
    created_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS created_at,
  livemode::BOOLEAN AS is_live,
  is_deleted::BOOLEAN AS is_deleted,
  (
    deleted_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS deleted_at,
  (
    _settled_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS settled_at,
  (
    _loaded_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS loaded_at
FROM raw_stripe.prices
