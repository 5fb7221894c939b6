MODEL (
  name staging.stg_google_analytics__ecommerce_items,
  kind VIEW,
  owner data,
  grain row_id,
  description 'Items seen and bought, one row a combination of the dimensions on each day of each property; rows that Google took back are left out.',
  column_descriptions (
    row_id = 'Key of the row: a keyed hash of property, date and all dimensions.',
    property_id = 'Number of the property.',
    date = 'Day, in the time zone of the property.',
    item_id = 'Identifier of the item, as the shop sent it.',
    item_name = 'Name of the item, as the shop sent it.',
    item_category = 'Category of the item, as the shop sent it.',
    items_viewed = 'Items whose details were seen.',
    items_added_to_cart = 'Items put into the cart.',
    items_purchased = 'Items bought.',
    item_revenue = 'Revenue of the items less refunds, without tax and shipping, in the currency beside it.',
    currency = 'ISO 4217 code of the amounts, as the property is set.',
    is_final = 'Whether the day had ended when it was read; Google may still restate it.',
    loaded_at = 'When this version of the row was read, UTC.'
  ),
  audits (
    not_null(columns := (row_id, property_id, date)),
    unique_values(columns := row_id)
  )
);

SELECT
  row_id::TEXT AS row_id,
  property_id::TEXT AS property_id,
  date::DATE AS date,
  item_id::TEXT AS item_id,
  item_name::TEXT AS item_name,
  item_category::TEXT AS item_category,
  items_viewed::BIGINT AS items_viewed,
  items_added_to_cart::BIGINT AS items_added_to_cart,
  items_purchased::BIGINT AS items_purchased,
  item_revenue::DECIMAL(38, 6) AS item_revenue,
  currency::TEXT AS currency,
  is_final::BOOLEAN AS is_final,
  (
    _loaded_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS loaded_at
FROM raw_google_analytics.ecommerce_items
WHERE
  _deleted_at IS NULL
