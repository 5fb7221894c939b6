MODEL (
  name staging.stg_stripe__invoice_items,
  kind VIEW,
  owner data,
  grain invoice_item_id,
  description 'One row an amount to be billed by the next invoice, or billed by one, as Stripe last stated it, renamed and cast; deleted ones and those of the test mode too. Instants become naive UTC timestamps.',
  column_descriptions (
    invoice_item_id = 'Stripe''s id of the invoice item.',
    customer_id = 'Customer who is billed; see stg_stripe__customers.',
    invoice_id = 'Invoice that bills it; null while it waits for one.',
    description = 'What is billed.',
    quantity = 'How many units.',
    is_proration = 'Whether it corrects for a change within a period.',
    currency = 'ISO 4217 code of the amounts, upper case.',
    amount_minor = 'Amount to be billed; negative for a credit; in minor units, as Stripe counts them.',
    amount = 'Amount to be billed; negative for a credit; in the currency''s main unit.',
    created_at = 'When Stripe made the invoice item, UTC.',
    is_live = 'Whether it is real, not of the account''s test mode; marts read nothing else.',
    is_deleted = 'Whether it was deleted in Stripe; the other columns keep their last values.',
    deleted_at = 'When it was deleted, or first seen to be gone, UTC; null while it is there.',
    settled_at = 'As of when Stripe was asked for this state, UTC; an older state never replaces a newer one.',
    loaded_at = 'When this state was loaded, UTC; strictly rising from load to load.'
  ),
  audits (
    not_null(columns := (invoice_item_id, is_deleted, loaded_at)),
    unique_values(columns := invoice_item_id)
  )
);

SELECT
  id::TEXT AS invoice_item_id,
  customer_id::TEXT AS customer_id,
  invoice_id::TEXT AS invoice_id,
  description::TEXT AS description,
  quantity::BIGINT AS quantity,
  proration::BOOLEAN AS is_proration,
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
FROM raw_stripe.invoice_items
