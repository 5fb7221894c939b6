MODEL (
  name staging.stg_google_analytics__geography,
  kind VIEW,
  owner data,
  grain row_id,
  description 'Visits by place, one row a combination of the dimensions on each day of each property; rows that Google took back are left out.',
  column_descriptions (
    row_id = 'Key of the row: a keyed hash of property, date and all dimensions.',
    property_id = 'Number of the property.',
    date = 'Day, in the time zone of the property.',
    country_id = 'ISO 3166-1 alpha-2 code of the country.',
    country = 'Country of the visitor, as Google names it.',
    region = 'Region of the visitor.',
    city = 'City of the visitor.',
    sessions = 'Visits that began.',
    engaged_sessions = 'Visits of at least ten seconds, with two pages or with a key event.',
    total_users = 'Users; not to be added up over rows or days.',
    new_users = 'Users whose first visit this was.',
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
  country_id::TEXT AS country_id,
  country::TEXT AS country,
  region::TEXT AS region,
  city::TEXT AS city,
  sessions::BIGINT AS sessions,
  engaged_sessions::BIGINT AS engaged_sessions,
  total_users::BIGINT AS total_users,
  new_users::BIGINT AS new_users,
  is_final::BOOLEAN AS is_final,
  (
    _loaded_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS loaded_at
FROM raw_google_analytics.geography
WHERE
  _deleted_at IS NULL
