MODEL (
  name staging.stg_stripe__promotion_codes,
  kind VIEW,
  owner data,
  grain promotion_code_id,
  description 'One row a code that customers enter for a coupon, as Stripe last stated it, renamed and cast; deleted ones and those of the test mode too. Instants become naive UTC timestamps.',
  column_descriptions (
    promotion_code_id = 'Stripe''s id of the promotion code.',
    code = 'What the customer enters.',
    coupon_id = 'Coupon that it gives; see stg_stripe__coupons.',
    customer_id = 'Customer who alone may use it; null: everyone may.',
    is_active = 'Whether it can be used now.',
    times_redeemed = 'How often it was used.',
    created_at = 'When Stripe made the promotion code, UTC.',
    is_live = 'Whether it is real, not of the account''s test mode; marts read nothing else.',
    is_deleted = 'Whether it was deleted in Stripe; the other columns keep their last values.',
    deleted_at = 'When it was deleted, or first seen to be gone, UTC; null while it is there.',
    settled_at = 'As of when Stripe was asked for this state, UTC; an older state never replaces a newer one.',
    loaded_at = 'When this state was loaded, UTC; strictly rising from load to load.'
  ),
  audits (
    not_null(columns := (promotion_code_id, is_deleted, loaded_at)),
    unique_values(columns := promotion_code_id)
  )
);

SELECT
  id::TEXT AS promotion_code_id,
  code::TEXT AS code,
  coupon_id::TEXT AS coupon_id,
  customer_id::TEXT AS customer_id,
  active::BOOLEAN AS is_active,
  times_redeemed::BIGINT AS times_redeemed,
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
FROM raw_stripe.promotion_codes
