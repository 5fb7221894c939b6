MODEL (
  name staging.stg_google_analytics__devices,
  kind VIEW,
  owner data,
  grain row_id,
  description 'Visits by device, one row a combination of the dimensions on each day of each property; rows that Google took back are left out.',
  column_descriptions (
    row_id = 'Key of the row: a keyed hash of property, date and all dimensions.',
    property_id = 'Number of the property.',
    date = 'Day, in the time zone of the property.',
    device_category = 'desktop, mobile, tablet or another kind of device.',
    operating_system = 'Operating system of the visitor.',
    browser = 'Browser of the visitor.',
    sessions = 'Visits that began.',
    engaged_sessions = 'Visits of at least ten seconds, with two pages or with a key event.',
    total_users = 'Users; not to be added up over rows or days.',
    screen_page_views = 'Pages seen.',
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
  device_category::TEXT AS device_category,
  operating_system::TEXT AS operating_system,
  browser::TEXT AS browser,
  sessions::BIGINT AS sessions,
  engaged_sessions::BIGINT AS engaged_sessions,
  total_users::BIGINT AS total_users,
  screen_page_views::BIGINT AS screen_page_views,
  is_final::BOOLEAN AS is_final,
  (
    _loaded_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS loaded_at
FROM raw_google_analytics.devices
WHERE
  _deleted_at IS NULL
