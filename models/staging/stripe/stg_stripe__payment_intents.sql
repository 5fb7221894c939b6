MODEL (
  name staging.stg_stripe__payment_intents,
  kind VIEW,
  owner data,
  grain payment_intent_id,
  description 'One row a payment to be made, whatever attempts it takes, as Stripe last stated it, renamed and cast; deleted ones and those of the test mode too. Instants become naive UTC timestamps.',
  column_descriptions (
    payment_intent_id = 'Stripe''s id of the payment intent.',
    customer_id = 'Customer who pays; see stg_stripe__customers.',
    latest_charge_id = 'Newest attempt; see stg_stripe__charges.',
    status = 'requires_payment_method, requires_confirmation, requires_action, processing, requires_capture, canceled or succeeded.',
    description = 'What it is for.',
    currency = 'ISO 4217 code of the amounts, upper case.',
    amount_minor = 'What is to be paid; in minor units, as Stripe counts them.',
    amount = 'What is to be paid; in the currency''s main unit.',
    amount_received_minor = 'What was paid; in minor units, as Stripe counts them.',
    amount_received = 'What was paid; in the currency''s main unit.',
    receipt_email_hash = 'Keyed hash of the email to which the receipt goes.',
    created_at = 'When Stripe made the payment intent, UTC.',
    is_live = 'Whether it is real, not of the account''s test mode; marts read nothing else.',
    is_deleted = 'Whether it was deleted in Stripe; the other columns keep their last values.',
    deleted_at = 'When it was deleted, or first seen to be gone, UTC; null while it is there.',
    settled_at = 'As of when Stripe was asked for this state, UTC; an older state never replaces a newer one.',
    loaded_at = 'When this state was loaded, UTC; strictly rising from load to load.'
  ),
  audits (
    not_null(columns := (payment_intent_id, is_deleted, loaded_at)),
    unique_values(columns := payment_intent_id)
  )
);

SELECT
  id::TEXT AS payment_intent_id,
  customer_id::TEXT AS customer_id,
  latest_charge_id::TEXT AS latest_charge_id,
  status::TEXT AS status,
  description::TEXT AS description,
  UPPER(currency)::TEXT AS currency,
  amount::BIGINT AS amount_minor,
  amount_decimal::DECIMAL(38, 3) AS amount,
  amount_received::BIGINT AS amount_received_minor,
  amount_received_decimal::DECIMAL(38, 3) AS amount_received,
  receipt_email_hash::TEXT AS receipt_email_hash,
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
FROM raw_stripe.payment_intents
