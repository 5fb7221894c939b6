MODEL (
  name staging.stg_stripe__products,
  kind VIEW,
  owner data,
  grain product_id,
  description 'One row a product, as Stripe last stated it, renamed and cast; deleted ones and those of the test mode too. Instants become naive UTC timestamps.',
  column_descriptions (
    product_id = 'Stripe''s id of the product.',
    name = 'Name of the product.',
    description = 'What the product is.',
    type = 'Kind of product: service or good.',
    is_active = 'Whether it can be bought now.',
    default_price_id = 'Price asked where none is named; see stg_stripe__prices.',
    updated_at = 'When the product was last changed, UTC.',
    created_at = 'When Stripe made the product, UTC.',
    is_live = 'Whether it is real, not of the account''s test mode; marts read nothing else.',
    is_deleted = 'Whether it was deleted in Stripe; the other columns keep their last values.',
    deleted_at = 'When it was deleted, or first seen to be gone, UTC; null while it is there.',
    settled_at = 'As of when Stripe was asked for this state, UTC; an older state never replaces a newer one.',
    loaded_at = 'When this state was loaded, UTC; strictly rising from load to load.'
  ),
  audits (
    not_null(columns := (product_id, is_deleted, loaded_at)),
    unique_values(columns := product_id)
  )
);

SELECT
  id::TEXT AS product_id,
  name::TEXT AS name,
  description::TEXT AS description,
  type::TEXT AS type,
  active::BOOLEAN AS is_active,
  default_price_id::TEXT AS default_price_id,
  (
    updated_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS updated_at,
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
FROM raw_stripe.products
