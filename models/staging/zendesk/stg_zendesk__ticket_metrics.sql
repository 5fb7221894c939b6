MODEL (
  name staging.stg_zendesk__ticket_metrics,
  kind VIEW,
  owner data,
  grain metric_id,
  description 'One row a ticket that has metrics, its counts and its durations in minutes by calendar and by business hours.',
  column_descriptions (
    metric_id = 'Key of the metric set in Zendesk.',
    ticket_id = 'The ticket.',
    reply_count = 'Public replies of agents.',
    reopen_count = 'How often it was opened again.',
    group_station_count = 'Groups it was given to.',
    assignee_station_count = 'Agents it was given to.',
    reply_minutes = 'Minutes to the first reply.',
    reply_business_minutes = 'The same in business hours.',
    first_resolution_minutes = 'Minutes until it was first solved.',
    full_resolution_minutes = 'Minutes until it was solved for good.',
    full_resolution_business_minutes = 'The same in business hours.',
    requester_wait_minutes = 'Minutes that the requester waited.',
    agent_wait_minutes = 'Minutes that the agents waited.',
    on_hold_minutes = 'Minutes on hold.',
    solved_at = 'When it was solved last, UTC.',
    loaded_at = 'When this version of the row was read, UTC; strictly rising from load to load.'
  ),
  audits (not_null(columns := metric_id), unique_values(columns := metric_id))
);

SELECT
  id::BIGINT AS metric_id,
  ticket_id::BIGINT AS ticket_id,
  replies::BIGINT AS reply_count,
  reopens::BIGINT AS reopen_count,
  group_stations::BIGINT AS group_station_count,
  assignee_stations::BIGINT AS assignee_station_count,
  reply_minutes::BIGINT AS reply_minutes,
  reply_business_minutes::BIGINT AS reply_business_minutes,
  first_resolution_minutes::BIGINT AS first_resolution_minutes,
  full_resolution_minutes::BIGINT AS full_resolution_minutes,
  full_resolution_business_minutes::BIGINT AS full_resolution_business_minutes,
  requester_wait_minutes::BIGINT AS requester_wait_minutes,
  agent_wait_minutes::BIGINT AS agent_wait_minutes,
  on_hold_minutes::BIGINT AS on_hold_minutes,
  (
    solved_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS solved_at,
  (
    _loaded_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS loaded_at
FROM raw_zendesk.ticket_metrics
