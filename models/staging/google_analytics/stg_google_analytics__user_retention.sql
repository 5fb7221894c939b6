MODEL (
  name staging.stg_google_analytics__user_retention,
  kind VIEW,
  owner data,
  grain row_id,
  description 'Who was there, by the day of the first visit, one row a combination of the dimensions on each day of each property; rows that Google took back are left out.',
  column_descriptions (
    row_id = 'Key of the row: a keyed hash of property, date and all dimensions.',
    property_id = 'Number of the property.',
    date = 'Day, in the time zone of the property.',
    first_session_date = 'Day of the visitor''s first visit; null where Google does not tell it, as in (other) rows.',
    new_vs_returning = 'new, returning, or (not set).',
    active_users = 'Users who were active; not to be added up over rows or days.',
    sessions = 'Visits that began.',
    engaged_sessions = 'Visits of at least ten seconds, with two pages or with a key event.',
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
  TRY_STRPTIME(first_session_date, '%Y%m%d')::DATE AS first_session_date,
  new_vs_returning::TEXT AS new_vs_returning,
  active_users::BIGINT AS active_users,
  sessions::BIGINT AS sessions,
  engaged_sessions::BIGINT AS engaged_sessions,
  is_final::BOOLEAN AS is_final,
  (
    _loaded_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS loaded_at
FROM raw_google_analytics.user_retention
WHERE
  _deleted_at IS NULL
