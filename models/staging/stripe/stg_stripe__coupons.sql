MODEL (
  name staging.stg_stripe__coupons,
  kind VIEW,
  owner data,
  grain coupon_id,
  description 'One row a coupon, as Stripe last stated it, renamed and cast; deleted ones and those of the test mode too. Instants become naive UTC timestamps.',
  column_descriptions (
    coupon_id = 'Stripe''s id of the coupon.',
    name = 'Name of the coupon.',
    percent_off = 'Percent taken off, 25.5 for 25.5 %; null where an amount is.',
    amount_off_minor = 'Amount taken off; null where a share is; in minor units, as Stripe counts them.',
    amount_off = 'Amount taken off; null where a share is; in the currency''s main unit.',
    currency = 'ISO 4217 code of the amount taken off, upper case; null where a share is.',
    duration = 'once, repeating or forever.',
    duration_in_months = 'For how many months a repeating coupon applies.',
    is_valid = 'Whether it can still be redeemed.',
    times_redeemed = 'How often it was redeemed.',
    max_redemptions = 'How often it may be redeemed; null: without limit.',
    redeem_by = 'Until when it may be redeemed, UTC; null: without limit.',
    created_at = 'When Stripe made the coupon, UTC.',
    is_live = 'Whether it is real, not of the account''s test mode; marts read nothing else.',
    is_deleted = 'Whether it was deleted in Stripe; the other columns keep their last values.',
    deleted_at = 'When it was deleted, or first seen to be gone, UTC; null while it is there.',
    settled_at = 'As of when Stripe was asked for this state, UTC; an older state never replaces a newer one.',
    loaded_at = 'When this state was loaded, UTC; strictly rising from load to load.'
  ),
  audits (
    not_null(columns := (coupon_id, is_deleted, loaded_at)),
    unique_values(columns := coupon_id)
  )
);

SELECT
  id::TEXT AS coupon_id,
  name::TEXT AS name,
  percent_off::DECIMAL(38, 12) AS percent_off,
  amount_off::BIGINT AS amount_off_minor,
  amount_off_decimal::DECIMAL(38, 3) AS amount_off,
  UPPER(currency)::TEXT AS currency,
  duration::TEXT AS duration,
  duration_in_months::BIGINT AS duration_in_months,
  valid::BOOLEAN AS is_valid,
  times_redeemed::BIGINT AS times_redeemed,
  max_redemptions::BIGINT AS max_redemptions,
  (
    redeem_by AT TIME ZONE 'UTC'
  )::TIMESTAMP AS redeem_by,
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
FROM raw_stripe.coupons
