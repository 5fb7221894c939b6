MODEL (
  name staging.stg_stripe__subscription_changes,
  kind VIEW,
  owner data,
  grain event_id,
  description 'One row a recorded change of a subscription: what it was from then on and, where the event says it, what it was until then. Read from the events, which are never written again, so it is what was true at the time; those of the test mode too. Instants become naive UTC timestamps.',
  column_descriptions (
    event_id = 'Stripe''s id of the event; see stg_stripe__events.',
    type = 'customer.subscription.created, .updated, .deleted and the like.',
    subscription_id = 'Subscription that changed; see stg_stripe__subscriptions.',
    status = 'Status from then on.',
    status_before = 'Status until then; the same where it did not change.',
    is_collection_paused = 'Whether the collection of payments is paused from then on.',
    is_collection_paused_before = 'Whether it was paused until then.',
    items = 'Items from then on, a JSON array of Stripe''s subscription items, each with the price of that time.',
    items_before = 'Items until then; the same where they did not change.',
    has_all_items = 'Whether the event shows every item; Stripe shows ten at the most.',
    is_creation = 'Whether the subscription began with it.',
    changed_at = 'When it changed, UTC, to the second.',
    is_live = 'Whether it is real, not of the account''s test mode; marts read nothing else.',
    loaded_at = 'When the event was loaded, UTC.'
  ),
  audits (
    not_null(columns := (event_id, subscription_id, changed_at)),
    unique_values(columns := event_id)
  )
);

WITH told AS (
  SELECT
    id,
    type,
    created_at,
    livemode,
    _loaded_at,
    _object -> '$.data.object' AS thing,
    _object -> '$.data.previous_attributes' AS before
  FROM raw_stripe.events
  WHERE
    STARTS_WITH(type, 'customer.subscription.')
)
SELECT
  id::TEXT AS event_id,
  type::TEXT AS type,
  (
    thing ->> '$.id'
  )::TEXT AS subscription_id,
  (
    thing ->> '$.status'
  )::TEXT AS status,
  COALESCE(before ->> '$.status', thing ->> '$.status')::TEXT AS status_before,
  (
    COALESCE(JSON_TYPE(thing, '$.pause_collection'), 'NULL') <> 'NULL'
  )::BOOLEAN AS is_collection_paused,
  (
    COALESCE(
      JSON_TYPE(before, '$.pause_collection'),
      JSON_TYPE(thing, '$.pause_collection'),
      'NULL'
    ) <> 'NULL'
  )::BOOLEAN AS is_collection_paused_before,
  CAST(thing -> '$.items.data' AS TEXT) AS items,
  COALESCE(before -> '$.items.data', thing -> '$.items.data')::TEXT AS items_before,
  (
    NOT COALESCE((
      thing ->> '$.items.has_more'
    )::BOOLEAN, FALSE)
    AND NOT COALESCE((
      before ->> '$.items.has_more'
    )::BOOLEAN, FALSE)
  )::BOOLEAN AS has_all_items,
  (
    type = 'customer.subscription.created'
  )::BOOLEAN AS is_creation,
  (
    created_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS changed_at,
  livemode::BOOLEAN AS is_live,
  (
    _loaded_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS loaded_at
FROM told
