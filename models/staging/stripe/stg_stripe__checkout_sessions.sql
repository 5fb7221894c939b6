MODEL (
  name staging.stg_stripe__checkout_sessions,
  kind VIEW,
  owner data,
  grain checkout_session_id,
  description 'One row a visit to the checkout page, as Stripe last stated it, renamed and cast; deleted ones and those of the test mode too. Instants become naive UTC timestamps.',
  column_descriptions (
    checkout_session_id = 'Stripe''s id of the checkout session.',
    customer_id = 'Customer who paid; see stg_stripe__customers.',
    payment_intent_id = 'Payment that it made; see stg_stripe__payment_intents.',
    subscription_id = 'Subscription that it began; see stg_stripe__subscriptions.',
    invoice_id = 'Invoice that it made; see stg_stripe__invoices.',
    mode = 'payment, setup or subscription.',
    status = 'open, complete or expired.',
    payment_status = 'paid, unpaid or no_payment_required.',
    currency = 'ISO 4217 code of the amounts, upper case.',
    amount_subtotal_minor = 'Sum before discounts and taxes; in minor units, as Stripe counts them.',
    amount_subtotal = 'Sum before discounts and taxes; in the currency''s main unit.',
    amount_total_minor = 'Sum after discounts and taxes; in minor units, as Stripe counts them.',
    amount_total = 'Sum after discounts and taxes; in the currency''s main unit.',
    customer_email_hash = 'Keyed hash of the email given at the checkout.',
    expires_at = 'When an open session expires, UTC.',
    created_at = 'When Stripe made the checkout session, UTC.',
    is_live = 'Whether it is real, not of the account''s test mode; marts read nothing else.',
    is_deleted = 'Whether it was deleted in Stripe; the other columns keep their last values.',
    deleted_at = 'When it was deleted, or first seen to be gone, UTC; null while it is there.',
    settled_at = 'As of when Stripe was asked for this state, UTC; an older state never replaces a newer one.',
    loaded_at = 'When this state was loaded, UTC; strictly rising from load to load.'
  ),
  audits (
    not_null(columns := (checkout_session_id, is_deleted, loaded_at)),
    unique_values(columns := checkout_session_id)
  )
);

SELECT
  id::TEXT AS checkout_session_id,
  customer_id::TEXT AS customer_id,
  payment_intent_id::TEXT AS payment_intent_id,
  subscription_id::TEXT AS subscription_id,
  invoice_id::TEXT AS invoice_id,
  mode::TEXT AS mode,
  status::TEXT AS status,
  payment_status::TEXT AS payment_status,
  UPPER(currency)::TEXT AS currency,
  amount_subtotal::BIGINT AS amount_subtotal_minor,
  amount_subtotal_decimal::DECIMAL(38, 3) AS amount_subtotal,
  amount_total::BIGINT AS amount_total_minor,
  amount_total_decimal::DECIMAL(38, 3) AS amount_total,
  customer_email_hash::TEXT AS customer_email_hash,
  (
    expires_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS expires_at,
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
FROM raw_stripe.checkout_sessions
