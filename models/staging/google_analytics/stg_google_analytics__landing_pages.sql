MODEL (
  name staging.stg_google_analytics__landing_pages,
  kind VIEW,
  owner data,
  grain row_id,
  description 'Visits by their first page, one row a combination of the dimensions on each day of each property; rows that Google took back are left out.',
  column_descriptions (
    row_id = 'Key of the row: a keyed hash of property, date and all dimensions.',
    property_id = 'Number of the property.',
    date = 'Day, in the time zone of the property.',
    landing_page = 'Path of the first page of the visit, without query and without personal data.',
    session_default_channel_group = 'Google''s own grouping of sources and mediums.',
    sessions = 'Visits that began.',
    engaged_sessions = 'Visits of at least ten seconds, with two pages or with a key event.',
    total_users = 'Users; not to be added up over rows or days.',
    new_users = 'Users whose first visit this was.',
    key_events = 'Key events; a part of one where several visits share it.',
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
  landing_page::TEXT AS landing_page,
  session_default_channel_group::TEXT AS session_default_channel_group,
  sessions::BIGINT AS sessions,
  engaged_sessions::BIGINT AS engaged_sessions,
  total_users::BIGINT AS total_users,
  new_users::BIGINT AS new_users,
  key_events::DOUBLE AS key_events,
  purchase_revenue::DECIMAL(38, 6) AS purchase_revenue,
  currency::TEXT AS currency,
  is_final::BOOLEAN AS is_final,
  (
    _loaded_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS loaded_at
FROM raw_google_analytics.landing_pages
WHERE
  _deleted_at IS NULL
