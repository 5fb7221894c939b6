MODEL (
  name marts.order_facts,
  kind INCREMENTAL_BY_UNIQUE_KEY (
    unique_key order_id
  ),
  owner data,
  grain order_id,
  depends_on (
    staging.stg_postgres__users
  ),
  references user_id,
  description 'Every order, one row each, as production last stated it. Built from what was loaded since the last build, so an old order that is edited today moves its own day. A merge by key cannot delete: what production deleted is merged first and then leaves, in the statement at the end.',
  column_descriptions (
    order_id = 'Key of the order in the production database.',
    user_id = 'Key of the user who ordered; see marts.user_dim.',
    ordered_at = 'When the order was placed, UTC.',
    order_date = 'UTC day on which the order was placed.',
    quantity = 'Units ordered.',
    revenue = 'Price of the whole order, in its currency.',
    currency = 'ISO 4217 code of the revenue; never add revenues of different currencies.',
    status = 'State of the order in the production database.',
    updated_at = 'When production last changed the order, UTC.',
    loaded_at = 'When this version of the order was loaded, UTC.',
    is_deleted = 'Whether production deleted the order. Always false here: deleted orders leave the facts and stay in staging.'
  ),
  audits (
    not_null(columns := (order_id, user_id, ordered_at, order_date, revenue, currency)),
    unique_values(columns := order_id),
    amount_is_valid(amount := revenue),
    not_in_the_future(day := order_date),
    reference_exists(key := user_id, parent := staging.stg_postgres__users, parent_key := user_id),
    orders_match_staging
  )
);

SELECT
  order_id::BIGINT AS order_id,
  user_id::BIGINT AS user_id,
  ordered_at::TIMESTAMP AS ordered_at,
  ordered_at::DATE AS order_date,
  quantity::INT AS quantity,
  revenue::DECIMAL(12, 2) AS revenue,
  currency::TEXT AS currency,
  status::TEXT AS status,
  updated_at::TIMESTAMP AS updated_at,
  loaded_at::TIMESTAMP AS loaded_at,
  (
    NOT deleted_at IS NULL
  )::BOOLEAN AS is_deleted
FROM staging.stg_postgres__orders
WHERE
  @loaded_since_last_build(loaded_at);

@IF(@runtime_stage = 'evaluating', DELETE FROM @this_model
WHERE
  is_deleted)
