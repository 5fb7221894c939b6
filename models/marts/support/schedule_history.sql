MODEL (
  name marts.schedule_history,
  kind SCD_TYPE_2_BY_TIME (
    unique_key schedule_id,
    updated_at_name updated_at,
    updated_at_as_valid_from TRUE,
    invalidate_hard_deletes TRUE,
    time_data_type TIMESTAMP /* said once more, or any edit of this file would look like a change of type */
  ),
  owner data,
  grain (schedule_id, valid_from),
  description 'Every version of a schedule of business hours that a load has seen, with the time from and to which it was in force: Zendesk tells only the present one.',
  column_descriptions (
    schedule_id = 'Key of the schedule in Zendesk.',
    schedule_name = 'What the schedule is called.',
    iana_time_zone = 'Time zone of the hours, an IANA name; null where Zendesk names one that is not known.',
    intervals = 'When it is open: a JSON list of start_time and end_time, minutes since the beginning of Sunday.',
    created_at = 'When the schedule was made, UTC; the oldest one is that of tickets to which none was given.',
    updated_at = 'When this version came to be, UTC: as Zendesk stamps it, or when it was loaded if the stamp did not rise with the change.',
    loaded_at = 'When this version was loaded, UTC.',
    valid_from = 'From when this version is in force, UTC.',
    valid_to = 'Until when it was in force, UTC; null means now.'
  ),
  audits (
    not_null(columns := (schedule_id, valid_from)),
    unique_combination_of_columns(columns := (schedule_id, valid_from))
  )
);

SELECT
  schedules.schedule_id::BIGINT AS schedule_id,
  schedules.schedule_name::TEXT AS schedule_name,
  schedules.iana_time_zone::TEXT AS iana_time_zone,
  schedules.intervals::TEXT AS intervals,
  schedules.created_at::TIMESTAMP AS created_at,
  @changed_at(schedules.schedule_id, schedules.updated_at, schedules.loaded_at)::TIMESTAMP AS updated_at,
  schedules.loaded_at::TIMESTAMP AS loaded_at
FROM staging.stg_zendesk__schedules AS schedules
WHERE
  schedules.deleted_at IS NULL
