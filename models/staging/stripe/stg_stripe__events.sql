MODEL (
  name staging.stg_stripe__events,
  kind VIEW,
  owner data,
  grain event_id,
  description 'One row an event as Stripe sent it, for ever, renamed and cast; those of the test mode too. Instants become naive UTC timestamps.',
  column_descriptions (
    event_id = 'Stripe''s id of the event.',
    type = 'What happened, for example invoice.paid.',
    object_id = 'Id of the object to which it happened.',
    object_type = 'Kind of that object, for example invoice.',
    api_version = 'API version in whose shape the event shows the object.',
    created_at = 'When Stripe made the event, UTC.',
    is_live = 'Whether it is real, not of the account''s test mode; marts read nothing else.',
    is_deleted = 'Whether it was deleted in Stripe; the other columns keep their last values.',
    deleted_at = 'When it was deleted, or first seen to be gone, UTC; null while it is there.',
    settled_at = 'As of when Stripe was asked for this state, UTC; an older state never replaces a newer one.',
    loaded_at = 'When this state was loaded, UTC; strictly rising from load to load.'
  ),
  audits (
    not_null(columns := (event_id, is_deleted, loaded_at)),
    unique_values(columns := event_id)
  )
);

SELECT
  id::TEXT AS event_id,
  type::TEXT AS type,
  object_id::TEXT AS object_id,
  object_type::TEXT AS object_type,
  api_version::TEXT AS api_version,
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
FROM raw_stripe.events
