MODEL (
  name staging.stg_stripe__refunds,
  kind VIEW,
  owner data,
  grain refund_id,
  description 'One row a refund, whole or in part, as Stripe last stated it, renamed and cast; deleted ones and those of the test mode too. Instants become naive UTC timestamps.',
  column_descriptions (
    refund_id = 'Stripe''s id of the refund.',
    charge_id = 'Charge that is refunded; see stg_stripe__charges.',
    payment_intent_id = 'Payment intent of that charge; see stg_stripe__payment_intents.',
    balance_transaction_id = 'Its effect on the account''s balance; see stg_stripe__balance_transactions.',
    status = 'pending, requires_action, succeeded, failed or canceled.',
    reason = 'duplicate, fraudulent, requested_by_customer or expired_uncaptured_charge.',
    currency = 'ISO 4217 code of the amounts, upper case.',
    amount_minor = 'What is given back; in minor units, as Stripe counts them.',
    amount = 'What is given back; in the currency''s main unit.',
    created_at = 'When Stripe made the refund, UTC.',
    is_live = 'Whether it is real, not of the account''s test mode; marts read nothing else.',
    is_deleted = 'Whether it was deleted in Stripe; the other columns keep their last values.',
    deleted_at = 'When it was deleted, or first seen to be gone, UTC; null while it is there.',
    settled_at = 'As of when Stripe was asked for this state, UTC; an older state never replaces a newer one.',
    loaded_at = 'When this state was loaded, UTC; strictly rising from load to load.'
  ),
  audits (
    not_null(columns := (refund_id, is_deleted, loaded_at)),
    unique_values(columns := refund_id)
  )
);

SELECT
  id::TEXT AS refund_id,
  charge_id::TEXT AS charge_id,
  payment_intent_id::TEXT AS payment_intent_id,
  balance_transaction_id::TEXT AS balance_transaction_id,
  status::TEXT AS status,
  reason::TEXT AS reason,
  UPPER(currency)::TEXT AS currency,
  amount::BIGINT AS amount_minor,
  amount_decimal::DECIMAL(38, 3) AS amount,
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
FROM raw_stripe.refunds
