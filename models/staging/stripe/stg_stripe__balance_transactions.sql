MODEL (
  name staging.stg_stripe__balance_transactions,
  kind VIEW,
  owner data,
  grain balance_transaction_id,
  description 'One row a movement of the account''s own balance, in the currency in which the account is paid, as Stripe last stated it, renamed and cast; deleted ones and those of the test mode too. Instants become naive UTC timestamps.',
  column_descriptions (
    balance_transaction_id = 'Stripe''s id of the balance transaction.',
    source_id = 'What moved the balance: a charge, a refund, a payout or another.',
    type = 'Kind of movement, for example charge, refund, payout or stripe_fee.',
    reporting_category = 'Kind of movement as Stripe''s own reports group it.',
    status = 'pending or available.',
    description = 'What moved the balance, in words.',
    currency = 'ISO 4217 code in which the account is paid, upper case; not always that of the charge.',
    amount_minor = 'Movement before the fee; negative for money that leaves; in minor units, as Stripe counts them.',
    amount = 'Movement before the fee; negative for money that leaves; in the currency''s main unit.',
    fee_minor = 'What Stripe took; in minor units, as Stripe counts them.',
    fee = 'What Stripe took; in the currency''s main unit.',
    net_minor = 'Movement after the fee; in minor units, as Stripe counts them.',
    net = 'Movement after the fee; in the currency''s main unit.',
    exchange_rate = 'By what the source''s amount was multiplied; null where no money was exchanged.',
    available_at = 'When the money can be paid out, UTC.',
    created_at = 'When Stripe made the balance transaction, UTC.',
    is_live = 'Whether it is real, not of the account''s test mode; marts read nothing else.',
    is_deleted = 'Whether it was deleted in Stripe; the other columns keep their last values.',
    deleted_at = 'When it was deleted, or first seen to be gone, UTC; null while it is there.',
    settled_at = 'As of when Stripe was asked for this state, UTC; an older state never replaces a newer one.',
    loaded_at = 'When this state was loaded, UTC; strictly rising from load to load.'
  ),
  audits (
    not_null(columns := (balance_transaction_id, is_deleted, loaded_at)),
    unique_values(columns := balance_transaction_id)
  )
);

SELECT
  id::TEXT AS balance_transaction_id,
  source_id::TEXT AS source_id,
  type::TEXT AS type,
  reporting_category::TEXT AS reporting_category,
  status::TEXT AS status,
  description::TEXT AS description,
  UPPER(currency)::TEXT AS currency,
  amount::BIGINT AS amount_minor,
  amount_decimal::DECIMAL(38, 3) AS amount,
  fee::BIGINT AS fee_minor,
  fee_decimal::DECIMAL(38, 3) AS fee,
  net::BIGINT AS net_minor,
  net_decimal::DECIMAL(38, 3) AS net,
  exchange_rate::DECIMAL(38, 12) AS exchange_rate,
  (
    available_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS available_at,
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
FROM raw_stripe.balance_transactions
