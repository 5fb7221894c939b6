MODEL (
  name staging.stg_zendesk__schedules,
  kind VIEW,
  owner data,
  grain schedule_id,
  description 'One row a schedule of business hours, as it is now.',
  column_descriptions (
    schedule_id = 'Key of the schedule in Zendesk.',
    schedule_name = 'Its name.',
    time_zone = 'Time zone of its hours, as Zendesk names it.',
    iana_time_zone = 'The same by its IANA name; null where the name is not known.',
    intervals = 'When it is open: a JSON list of start_time and end_time, minutes since the beginning of Sunday.',
    created_at = 'When it was made, UTC.',
    updated_at = 'When it last changed, UTC.',
    deleted_at = 'When the list of schedules was first seen without it, UTC.',
    loaded_at = 'When this version of the row was read, UTC; strictly rising from load to load.'
  ),
  audits (not_null(columns := schedule_id), unique_values(columns := schedule_id))
);

SELECT
  id::BIGINT AS schedule_id,
  name::TEXT AS schedule_name,
  time_zone::TEXT AS time_zone,
  @iana_time_zone(time_zone)::TEXT AS iana_time_zone,
  intervals::TEXT AS intervals,
  (
    created_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS created_at,
  (
    updated_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS updated_at,
  (
    _deleted_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS deleted_at,
  (
    _loaded_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS loaded_at
FROM raw_zendesk.schedules
