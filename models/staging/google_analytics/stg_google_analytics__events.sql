MODEL (
  name staging.stg_google_analytics__events,
  kind VIEW,
  owner data,
  grain row_id,
  description 'Events by name, one row a combination of the dimensions on each day of each property; rows that Google took back are left out.',
  column_descriptions (
    row_id = 'Key of the row: a keyed hash of property, date and all dimensions.',
    property_id = 'Number of the property.',
    date = 'Day, in the time zone of the property.',
    event_name = 'Name of the event.',
    event_count = 'Events.',
    total_users = 'Users; not to be added up over rows or days.',
    event_value = 'Sum of the events'' parameter value, whatever it counts.',
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
  event_name::TEXT AS event_name,
  event_count::BIGINT AS event_count,
  total_users::BIGINT AS total_users,
  event_value::DOUBLE AS event_value,
  is_final::BOOLEAN AS is_final,
  (
    _loaded_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS loaded_at
FROM raw_google_analytics.events
WHERE
  _deleted_at IS NULL
