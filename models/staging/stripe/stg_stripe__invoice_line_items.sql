MODEL (
  name staging.stg_stripe__invoice_line_items,
  kind VIEW,
  owner data,
  grain invoice_line_item_id,
  description 'One row a line of an invoice, as Stripe last stated it, renamed and cast; deleted ones and those of the test mode too. Instants become naive UTC timestamps.',
  column_descriptions (
    invoice_line_item_id = 'Stripe''s id of the invoice line item.',
    invoice_id = 'Invoice to which it belongs; see stg_stripe__invoices.',
    subscription_id = 'Subscription that it bills; null for others.',
    subscription_item_id = 'Item of the subscription that it bills; see stg_stripe__subscription_items.',
    is_proration = 'Whether it corrects for a change within a period, instead of billing a period.',
    price_id = 'Price that is billed; see stg_stripe__prices.',
    description = 'What stands on the line.',
    quantity = 'How many units.',
    currency = 'ISO 4217 code of the amounts, upper case.',
    amount_minor = 'Amount of the line, before discounts and taxes; negative for a credit; in minor units, as Stripe counts them.',
    amount = 'Amount of the line, before discounts and taxes; negative for a credit; in the currency''s main unit.',
    period_start_at = 'When the period billed began, UTC.',
    period_end_at = 'When the period billed ended, UTC.',
    created_at = 'When its invoice was made, UTC.',
    is_live = 'Whether it is real, not of the account''s test mode; marts read nothing else.',
    is_deleted = 'Whether it was deleted in Stripe; the other columns keep their last values.',
    deleted_at = 'When it was deleted, or first seen to be gone, UTC; null while it is there.',
    settled_at = 'As of when Stripe was asked for this state, UTC; an older state never replaces a newer one.',
    loaded_at = 'When this state was loaded, UTC; strictly rising from load to load.'
  ),
  audits (
    not_null(columns := (invoice_line_item_id, is_deleted, loaded_at)),
    unique_values(columns := invoice_line_item_id)
  )
);

SELECT
  id::TEXT AS invoice_line_item_id,
  invoice_id::TEXT AS invoice_id,
  subscription_id::TEXT AS subscription_id,
  (
    _object ->> '$.parent.subscription_item_details.subscription_item'
  )::TEXT AS subscription_item_id,
  COALESCE((
    _object ->> '$.parent.subscription_item_details.proration'
  )::BOOLEAN, FALSE)::BOOLEAN AS is_proration,
  price_id::TEXT AS price_id,
  description::TEXT AS description,
  quantity::BIGINT AS quantity,
  UPPER(currency)::TEXT AS currency,
  amount::BIGINT AS amount_minor,
  amount_decimal::DECIMAL(38, 3) AS amount,
  (
    period_start_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS period_start_at,
  (
    period_end_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS period_end_at,
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
FROM raw_stripe.invoice_line_items
