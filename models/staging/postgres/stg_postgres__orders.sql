MODEL (
  name staging.stg_postgres__orders,
  kind VIEW,
  owner data,
  grain order_id,
  description 'One row an order of the production database, renamed and cast; instants become naive UTC timestamps.',
  column_descriptions (
    order_id = 'Key of the order in the production database.',
    user_id = 'Key of the user who ordered.',
    ordered_at = 'When the order was placed, UTC.',
    quantity = 'Units ordered.',
    revenue = 'Price of the whole order, in its currency.',
    currency = 'ISO 4217 code of the revenue.',
    status = 'State of the order in the production database.',
    updated_at = 'When production last changed the order, UTC.',
    loaded_at = 'When this version of the row was read from production, UTC; strictly rising from load to load.',
    deleted_at = 'When production was first seen without this order, UTC; null while it is there.'
  ),
  audits (
    not_null(columns := (order_id, user_id, ordered_at)),
    unique_values(columns := order_id)
  )
);

SELECT
  id::BIGINT AS order_id,
  user_id::BIGINT AS user_id,
  (
    ordered_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS ordered_at,
  quantity::INT AS quantity,
  revenue::DECIMAL(12, 2) AS revenue,
  currency::TEXT AS currency,
  status::TEXT AS status,
  (
    updated_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS updated_at,
  (
    _loaded_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS loaded_at,
  (
    _deleted_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS deleted_at
FROM raw_postgres.orders
