MODEL (
  name staging.stg_stripe__charges,
  kind VIEW,
  owner data,
  grain charge_id,
  description 'One row an attempt to take money, as Stripe last stated it, renamed and cast; deleted ones and those of the test mode too. Instants become naive UTC timestamps.',
  column_descriptions (
    charge_id = 'Stripe''s id of the charge.',
    customer_id = 'Customer who is charged; see stg_stripe__customers.',
    payment_intent_id = 'Payment intent that made it; see stg_stripe__payment_intents.',
    balance_transaction_id = 'Its effect on the account''s balance; see stg_stripe__balance_transactions.',
    status = 'succeeded, pending or failed.',
    failure_code = 'Why it failed.',
    description = 'What it is for.',
    is_paid = 'Whether it succeeded, or was authorised for a later capture.',
    is_captured = 'Whether the money was taken, not only reserved.',
    is_refunded = 'Whether all of it was refunded.',
    is_disputed = 'Whether it was ever disputed.',
    currency = 'ISO 4217 code of the amounts, upper case.',
    amount_minor = 'What was to be taken; in minor units, as Stripe counts them.',
    amount = 'What was to be taken; in the currency''s main unit.',
    amount_captured_minor = 'What was taken; in minor units, as Stripe counts them.',
    amount_captured = 'What was taken; in the currency''s main unit.',
    amount_refunded_minor = 'What was given back; in minor units, as Stripe counts them.',
    amount_refunded = 'What was given back; in the currency''s main unit.',
    receipt_email_hash = 'Keyed hash of the email to which the receipt went.',
    billing_email_hash = 'Keyed hash of the email given with the card.',
    created_at = 'When Stripe made the charge, UTC.',
    is_live = 'Whether it is real, not of the account''s test mode; marts read nothing else.',
    is_deleted = 'Whether it was deleted in Stripe; the other columns keep their last values.',
    deleted_at = 'When it was deleted, or first seen to be gone, UTC; null while it is there.',
    settled_at = 'As of when Stripe was asked for this state, UTC; an older state never replaces a newer one.',
    loaded_at = 'When this state was loaded, UTC; strictly rising from load to load.'
  ),
  audits (
    not_null(columns := (charge_id, is_deleted, loaded_at)),
    unique_values(columns := charge_id)
  )
);

SELECT
  id::TEXT AS charge_id,
  customer_id::TEXT AS customer_id,
  payment_intent_id::TEXT AS payment_intent_id,
  balance_transaction_id::TEXT AS balance_transaction_id,
  status::TEXT AS status,
  failure_code::TEXT AS failure_code,
  description::TEXT AS description,
  paid::BOOLEAN AS is_paid,
  captured::BOOLEAN AS is_captured,
  refunded::BOOLEAN AS is_refunded,
  disputed::BOOLEAN AS is_disputed,
  UPPER(currency)::TEXT AS currency,
  amount::BIGINT AS amount_minor,
  amount_decimal::DECIMAL(38, 3) AS amount,
  amount_captured::BIGINT AS amount_captured_minor,
  amount_captured_decimal::DECIMAL(38, 3) AS amount_captured,
  amount_refunded::BIGINT AS amount_refunded_minor,
  amount_refunded_decimal::DECIMAL(38, 3) AS amount_refunded,
  receipt_email_hash::TEXT AS receipt_email_hash,
  billing_email_hash::TEXT AS billing_email_hash,
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
FROM raw_stripe.charges
