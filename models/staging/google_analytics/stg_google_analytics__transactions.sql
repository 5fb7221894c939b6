MODEL (
  name staging.stg_google_analytics__transactions,
  kind VIEW,
  owner data,
  grain row_id,
  description 'Purchases by the identifier that the shop gave them and the visit in which they were made, one row a combination of the dimensions on each day of each property; rows that Google took back are left out.',
  column_descriptions (
    row_id = 'Key of the row: a keyed hash of property, date and all dimensions.',
    property_id = 'Number of the property.',
    date = 'Day, in the time zone of the property.',
    transaction_id = 'Identifier of the purchase, as the shop sent it.',
    session_source = 'Where the visit came from, for example google or (direct).',
    session_medium = 'How it came, for example organic, cpc or (none).',
    session_campaign_name = 'Campaign of the visit; (not set) where there is none.',
    session_default_channel_group = 'Google''s own grouping of sources and mediums.',
    transactions = 'Purchases.',
    purchase_revenue = 'Revenue of purchases less refunds, in the currency beside it.',
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
  transaction_id::TEXT AS transaction_id,
  session_source::TEXT AS session_source,
  session_medium::TEXT AS session_medium,
  session_campaign_name::TEXT AS session_campaign_name,
  session_default_channel_group::TEXT AS session_default_channel_group,
  transactions::BIGINT AS transactions,
  purchase_revenue::DECIMAL(38, 6) AS purchase_revenue,
  currency::TEXT AS currency,
  is_final::BOOLEAN AS is_final,
  (
    _loaded_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS loaded_at
FROM raw_google_analytics.transactions
WHERE
  _deleted_at IS NULL
