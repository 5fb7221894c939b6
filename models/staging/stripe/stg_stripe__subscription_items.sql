MODEL (
  name staging.stg_stripe__subscription_items,
  kind VIEW,
  owner data,
  grain subscription_item_id,
  description 'One row a price within a subscription, as Stripe last stated it, renamed and cast; deleted ones and those of the test mode too. Instants become naive UTC timestamps.',
  column_descriptions (
    subscription_item_id = 'Stripe''s id of the subscription item.',
    subscription_id = 'Subscription to which it belongs; see stg_stripe__subscriptions.',
    price_id = 'Price that is billed; see stg_stripe__prices.',
    price = 'That price as written on the item, a JSON object; of an item of old only its id may be there.',
    quantity = 'How many units; null where usage is measured.',
    current_period_start_at = 'When the period billed last began, UTC.',
    current_period_end_at = 'When the period billed last ends, UTC.',
    created_at = 'When Stripe made the subscription item, UTC.',
    is_live = 'Whether it is real, not of the account''s test mode; marts read nothing else.',
    is_deleted = 'Whether it was deleted in Stripe; the other columns keep their last values.',
    deleted_at = 'When it was deleted, or first seen to be gone, UTC; null while it is there.',
    settled_at = 'As of when Stripe was asked for this state, UTC; an older state never replaces a newer one.',
    loaded_at = 'When this state was loaded, UTC; strictly rising from load to load.'
  ),
  audits (
    not_null(columns := (subscription_item_id, is_deleted, loaded_at)),
    unique_values(columns := subscription_item_id)
  )
);

SELECT
  id::TEXT AS subscription_item_id,
  subscription_id::TEXT AS subscription_id,
  price_id::TEXT AS price_id,
  CAST(_object -> '$.price' AS TEXT) AS price,
  quantity::BIGINT AS quantity,
  (
    current_period_start_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS current_period_start_at,
  (
    current_period_end_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS current_period_end_at,
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
FROM raw_stripe.subscription_items
