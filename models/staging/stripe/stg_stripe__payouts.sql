MODEL (
  name staging.stg_stripe__payouts,
  kind VIEW,
  owner data,
  grain payout_id,
  description 'One row a payout to the bank, as Stripe last stated it, renamed and cast; deleted ones and those of the test mode too. Instants become naive UTC timestamps.',
  column_descriptions (
    payout_id = 'Stripe''s id of the payout.',
    balance_transaction_id = 'Its effect on the account''s balance; see stg_stripe__balance_transactions.',
    status = 'pending, in_transit, paid, failed or canceled.',
    type = 'bank_account or card.',
    method = 'standard or instant.',
    is_automatic = 'Whether a schedule made it.',
    currency = 'ISO 4217 code of the amounts, upper case.',
    amount_minor = 'What is paid out; negative when it is taken back; in minor units, as Stripe counts them.',
    amount = 'What is paid out; negative when it is taken back; in the currency''s main unit.',
    arrival_at = 'When the bank has it, UTC.',
    created_at = 'When Stripe made the payout, UTC.',
    is_live = 'Whether it is real, not of the account''s test mode; marts read nothing else.',
    is_deleted = 'Whether it was deleted in Stripe; the other columns keep their last values.',
    deleted_at = 'When it was deleted, or first seen to be gone, UTC; null while it is there.',
    settled_at = 'As of when Stripe was asked for this state, UTC; an older state never replaces a newer one.',
    loaded_at = 'When this state was loaded, UTC; strictly rising from load to load.'
  ),
  audits (
    not_null(columns := (payout_id, is_deleted, loaded_at)),
    unique_values(columns := payout_id)
  )
);

SELECT
  id::TEXT AS payout_id,
  balance_transaction_id::TEXT AS balance_transaction_id,
  status::TEXT AS status,
  type::TEXT AS type,
  method::TEXT AS method,
  automatic::BOOLEAN AS is_automatic,
  UPPER(currency)::TEXT AS currency,
  amount::BIGINT AS amount_minor,
  amount_decimal::DECIMAL(38, 3) AS amount,
  (
    arrival_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS arrival_at,
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
FROM raw_stripe.payouts
