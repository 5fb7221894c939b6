MODEL (
  name staging.stg_zendesk__ticket_field_history,
  kind VIEW,
  owner data,
  grain (change_id, field),
  description 'One row a change of a field of a ticket, its first value included.',
  column_descriptions (
    change_id = 'Key of the change in Zendesk; one change may touch several custom fields.',
    ticket_id = 'The ticket.',
    event_id = 'The event that it came with.',
    field = 'Name of the field, field_<id> for a custom one.',
    field_id = 'Id of a custom field, as in raw_zendesk.ticket_fields; null otherwise.',
    change = 'create for the first value, change afterwards.',
    value = 'The value since then, as text, scrubbed; lists as JSON.',
    previous_value = 'The value until then.',
    changed_at = 'When it changed, UTC.',
    changed_by = 'The user who changed it; negative for the system.',
    loaded_at = 'When this version of the row was read, UTC; strictly rising from load to load.'
  ),
  audits (
    not_null(columns := (change_id, field)),
    unique_combination_of_columns(columns := (change_id, field))
  )
);

SELECT
  id::BIGINT AS change_id,
  ticket_id::BIGINT AS ticket_id,
  event_id::BIGINT AS event_id,
  field::TEXT AS field,
  field_id::BIGINT AS field_id,
  change::TEXT AS change,
  value::TEXT AS value,
  previous_value::TEXT AS previous_value,
  (
    changed_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS changed_at,
  changed_by::BIGINT AS changed_by,
  (
    _loaded_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS loaded_at
FROM raw_zendesk.ticket_field_history
