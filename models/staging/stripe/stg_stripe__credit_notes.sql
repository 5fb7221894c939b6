MODEL (
  name staging.stg_stripe__credit_notes,
  kind VIEW,
  owner data,
  grain credit_note_id,
  description 'One row a credit note: it lowers an invoice, as Stripe last stated it, renamed and cast; deleted ones and those of the test mode too. Instants become naive UTC timestamps.',
  column_descriptions (
    credit_note_id = 'Stripe''s id of the credit note.',
    customer_id = 'Customer of the invoice; see stg_stripe__customers.',
    invoice_id = 'Invoice that it lowers; see stg_stripe__invoices.',
    number = 'Number printed on the credit note.',
    status = 'issued or void.',
    type = 'pre_payment, post_payment or mixed: whether the invoice had been paid.',
    reason = 'duplicate, fraudulent, order_change or product_unsatisfactory.',
    currency = 'ISO 4217 code of the amounts, upper case.',
    amount_minor = 'Amount of the credit note, taxes included; in minor units, as Stripe counts them.',
    amount = 'Amount of the credit note, taxes included; in the currency''s main unit.',
    subtotal_minor = 'Amount before taxes and discounts; in minor units, as Stripe counts them.',
    subtotal = 'Amount before taxes and discounts; in the currency''s main unit.',
    total_minor = 'Amount after taxes and discounts; in minor units, as Stripe counts them.',
    total = 'Amount after taxes and discounts; in the currency''s main unit.',
    created_at = 'When Stripe made the credit note, UTC.',
    is_live = 'Whether it is real, not of the account''s test mode; marts read nothing else.',
    is_deleted = 'Whether it was deleted in Stripe; the other columns keep their last values.',
    deleted_at = 'When it was deleted, or first seen to be gone, UTC; null while it is there.',
    settled_at = 'As of when Stripe was asked for this state, UTC; an older state never replaces a newer one.',
    loaded_at = 'When this state was loaded, UTC; strictly rising from load to load.'
  ),
  audits (
    not_null(columns := (credit_note_id, is_deleted, loaded_at)),
    unique_values(columns := credit_note_id)
  )
);

SELECT
  id::TEXT AS credit_note_id,
  customer_id::TEXT AS customer_id,
  invoice_id::TEXT AS invoice_id,
  number::TEXT AS number,
  status::TEXT AS status,
  type::TEXT AS type,
  reason::TEXT AS reason,
  UPPER(currency)::TEXT AS currency,
  amount::BIGINT AS amount_minor,
  amount_decimal::DECIMAL(38, 3) AS amount,
  subtotal::BIGINT AS subtotal_minor,
  subtotal_decimal::DECIMAL(38, 3) AS subtotal,
  total::BIGINT AS total_minor,
  total_decimal::DECIMAL(38, 3) AS total,
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
FROM raw_stripe.credit_notes
