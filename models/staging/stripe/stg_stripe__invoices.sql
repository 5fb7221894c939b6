MODEL (
  name staging.stg_stripe__invoices,
  kind VIEW,
  owner data,
  grain invoice_id,
  description 'One row an invoice, as Stripe last stated it, renamed and cast; deleted ones and those of the test mode too. Instants become naive UTC timestamps.',
  column_descriptions (
    invoice_id = 'Stripe''s id of the invoice.',
    customer_id = 'Customer who is billed; see stg_stripe__customers.',
    subscription_id = 'Subscription that it bills; null for others.',
    number = 'Number printed on the invoice; null for a draft.',
    status = 'draft, open, paid, uncollectible or void.',
    billing_reason = 'Why it was made, for example subscription_cycle or manual.',
    collection_method = 'charge_automatically or send_invoice.',
    currency = 'ISO 4217 code of the amounts, upper case.',
    subtotal_minor = 'Sum of the lines before discounts and taxes; in minor units, as Stripe counts them.',
    subtotal = 'Sum of the lines before discounts and taxes; in the currency''s main unit.',
    total_minor = 'Sum after discounts and taxes; in minor units, as Stripe counts them.',
    total = 'Sum after discounts and taxes; in the currency''s main unit.',
    amount_due_minor = 'What is to be paid, the customer''s balance taken into account; in minor units, as Stripe counts them.',
    amount_due = 'What is to be paid, the customer''s balance taken into account; in the currency''s main unit.',
    amount_paid_minor = 'What was paid; in minor units, as Stripe counts them.',
    amount_paid = 'What was paid; in the currency''s main unit.',
    amount_remaining_minor = 'What is still to be paid; in minor units, as Stripe counts them.',
    amount_remaining = 'What is still to be paid; in the currency''s main unit.',
    period_start_at = 'Since when usage was collected for it, UTC.',
    period_end_at = 'Until when usage was collected for it, UTC.',
    due_at = 'When it is due, UTC; null where it is charged automatically.',
    finalized_at = 'When it stopped being a draft, UTC.',
    paid_at = 'When it was paid, UTC.',
    voided_at = 'When it was voided, UTC.',
    customer_email_hash = 'Keyed hash of the email written on the invoice.',
    created_at = 'When Stripe made the invoice, UTC.',
    is_live = 'Whether it is real, not of the account''s test mode; marts read nothing else.',
    is_deleted = 'Whether it was deleted in Stripe; the other columns keep their last values.',
    deleted_at = 'When it was deleted, or first seen to be gone, UTC; null while it is there.',
    settled_at = 'As of when Stripe was asked for this state, UTC; an older state never replaces a newer one.',
    loaded_at = 'When this state was loaded, UTC; strictly rising from load to load.'
  ),
  audits (
    not_null(columns := (invoice_id, is_deleted, loaded_at)),
    unique_values(columns := invoice_id)
  )
);

SELECT
  id::TEXT AS invoice_id,
  customer_id::TEXT AS customer_id,
  subscription_id::TEXT AS subscription_id,
  number::TEXT AS number,
  status::TEXT AS status,
  billing_reason::TEXT AS billing_reason,
  collection_method::TEXT AS collection_method,
  UPPER(currency)::TEXT AS currency,
  subtotal::BIGINT AS subtotal_minor,
  subtotal_decimal::DECIMAL(38, 3) AS subtotal,
  total::BIGINT AS total_minor,
  total_decimal::DECIMAL(38, 3) AS total,
  amount_due::BIGINT AS amount_due_minor,
  amount_due_decimal::DECIMAL(38, 3) AS amount_due,
  amount_paid::BIGINT AS amount_paid_minor,
  amount_paid_decimal::DECIMAL(38, 3) AS amount_paid,
  amount_remaining::BIGINT AS amount_remaining_minor,
  amount_remaining_decimal::DECIMAL(38, 3) AS amount_remaining,
  (
    period_start_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS period_start_at,
  (
    period_end_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS period_end_at,
  (
    due_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS due_at,
  (
    finalized_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS finalized_at,
  (
    paid_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS paid_at,
  (
    voided_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS voided_at,
  customer_email_hash::TEXT AS customer_email_hash,
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
FROM raw_stripe.invoices
