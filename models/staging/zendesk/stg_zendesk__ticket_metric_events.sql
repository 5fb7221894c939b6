MODEL (
  name staging.stg_zendesk__ticket_metric_events,
  kind VIEW,
  owner data,
  grain metric_event_id,
  description 'One row a moment at which a metric of a ticket began, paused or ended, or at which a target was applied to it.',
  column_descriptions (
    metric_event_id = 'Key of the event in Zendesk.',
    ticket_id = 'The ticket.',
    metric = 'What is measured, for example reply_time.',
    instance_id = 'Which measurement of the ticket it is: 1 for the first reply.',
    event = 'activate, pause, fulfill, apply_sla, breach or update_status.',
    occurred_at = 'When it happened, UTC.',
    target_seconds = 'The target that was applied, in seconds; null for other events.',
    is_target_in_business_hours = 'Whether that target counts business hours alone.',
    is_deleted = 'Whether Zendesk took the event back.',
    loaded_at = 'When this version of the row was read, UTC; strictly rising from load to load.'
  ),
  audits (not_null(columns := metric_event_id), unique_values(columns := metric_event_id))
);

SELECT
  id::BIGINT AS metric_event_id,
  ticket_id::BIGINT AS ticket_id,
  metric::TEXT AS metric,
  instance_id::BIGINT AS instance_id,
  type::TEXT AS event,
  (
    occurred_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS occurred_at,
  COALESCE(
    CAST(sla ->> '$.target_in_seconds' AS BIGINT),
    60 * CAST(sla ->> '$.target' AS BIGINT)
  )::BIGINT AS target_seconds,
  CAST(sla ->> '$.business_hours' AS BOOLEAN) AS is_target_in_business_hours,
  COALESCE(deleted, FALSE)::BOOLEAN AS is_deleted,
  (
    _loaded_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS loaded_at
FROM raw_zendesk.ticket_metric_events
