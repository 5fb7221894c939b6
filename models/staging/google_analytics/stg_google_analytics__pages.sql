MODEL (
  name staging.stg_google_analytics__pages,
  kind VIEW,
  owner data,
  grain row_id,
  description 'Pages seen, one row a combination of the dimensions on each day of each property; rows that Google took back are left out.',
  column_descriptions (
    row_id = 'Key of the row: a keyed hash of property, date and all dimensions.',
    property_id = 'Number of the property.',
    date = 'Day, in the time zone of the property.',
    host_name = 'Host of the page.',
    page_path = 'Path of the page, without query and without personal data.',
    screen_page_views = 'Pages seen.',
    total_users = 'Users; not to be added up over rows or days.',
    user_engagement_duration = 'Seconds during which the site was in the foreground.',
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
  host_name::TEXT AS host_name,
  page_path::TEXT AS page_path,
  screen_page_views::BIGINT AS screen_page_views,
  total_users::BIGINT AS total_users,
  user_engagement_duration::DOUBLE AS user_engagement_duration,
  is_final::BOOLEAN AS is_final,
  (
    _loaded_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS loaded_at
FROM raw_google_analytics.pages
WHERE
  _deleted_at IS NULL
