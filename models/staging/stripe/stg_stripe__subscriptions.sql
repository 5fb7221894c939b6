MODEL (
  name staging.stg_stripe__subscriptions,
  kind VIEW,
  owner data,
  grain subscription_id,
  description 'One row a subscription, canceled ones too, as Stripe last stated it, renamed and cast; deleted ones and those of the test mode too. Instants become naive UTC timestamps.',
  column_descriptions (
    subscription_id = 'Stripe''s id of the subscription.',
    customer_id = 'Customer who subscribed; see stg_stripe__customers.',
    status = 'incomplete, incomplete_expired, trialing, active, past_due, canceled, unpaid or paused.',
    currency = 'ISO 4217 code in which it is billed, upper case.',
    collection_method = 'charge_automatically or send_invoice.',
    start_at = 'When it began, UTC; before created_at where it was backdated.',
    trial_start_at = 'When the trial began, UTC.',
    trial_end_at = 'When the trial ended or will end, UTC.',
    is_canceled_at_period_end = 'Whether it ends with the present period.',
    is_collection_paused = 'Whether the collection of payments is paused; its status stays active then.',
    canceled_at = 'When its end was decided, UTC.',
    ended_at = 'When it ended, UTC.',
    latest_invoice_id = 'Its newest invoice; see stg_stripe__invoices.',
    created_at = 'When Stripe made the subscription, UTC.',
    is_live = 'Whether it is real, not of the account''s test mode; marts read nothing else.',
    is_deleted = 'Whether it was deleted in Stripe; the other columns keep their last values.',
    deleted_at = 'When it was deleted, or first seen to be gone, UTC; null while it is there.',
    settled_at = 'As of when Stripe was asked for this state, UTC; an older state never replaces a newer one.',
    loaded_at = 'When this state was loaded, UTC; strictly rising from load to load.'
  ),
  audits (
    not_null(columns := (subscription_id, is_deleted, loaded_at)),
    unique_values(columns := subscription_id)
  )
);

SELECT
  id::TEXT AS subscription_id,
  customer_id::TEXT AS customer_id,
  status::TEXT AS status,
  UPPER(currency)::TEXT AS currency,
  collection_method::TEXT AS collection_method,
  (
    start_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS start_at,
  (
    trial_start_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS trial_start_at,
  (
    trial_end_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS trial_end_at,
  cancel_at_period_end::BOOLEAN AS is_canceled_at_period_end,
  (
    COALESCE(JSON_TYPE(_object, '$.pause_collection'), 'NULL') <> 'NULL'
  )::BOOLEAN AS is_collection_paused,
  (
    canceled_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS canceled_at,
  (
    ended_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS ended_at,
  latest_invoice_id::TEXT AS latest_invoice_id,
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
FROM raw_stripe.subscriptions
