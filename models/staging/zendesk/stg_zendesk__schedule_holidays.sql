MODEL (
  name staging.stg_zendesk__schedule_holidays,
  kind VIEW,
  owner data,
  grain holiday_id,
  description 'One row a holiday of a schedule.',
  column_descriptions (
    holiday_id = 'Key of the holiday in Zendesk.',
    schedule_id = 'The schedule that is closed.',
    holiday_name = 'Its name.',
    start_date = 'First day of it, in the time zone of the schedule.',
    end_date = 'Last day of it.',
    deleted_at = 'When the list of holidays was first seen without it, UTC.',
    loaded_at = 'When this version of the row was read, UTC; strictly rising from load to load.'
  ),
  audits (not_null(columns := holiday_id), unique_values(columns := holiday_id))
);

SELECT
  id::BIGINT AS holiday_id,
  schedule_id::BIGINT AS schedule_id,
  name::TEXT AS holiday_name,
  start_date::DATE AS start_date,
  end_date::DATE AS end_date,
  (
    _deleted_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS deleted_at,
  (
    _loaded_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS loaded_at
FROM raw_zendesk.schedule_holidays
