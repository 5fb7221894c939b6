MODEL (
  name staging.stg_zendesk__satisfaction_ratings,
  kind VIEW,
  owner data,
  grain rating_id,
  description 'One row a rating of a ticket.',
  column_descriptions (
    rating_id = 'Key of the rating in Zendesk.',
    ticket_id = 'The ticket.',
    requester_id = 'The user who was asked.',
    assignee_id = 'The agent at that time.',
    group_id = 'The group at that time.',
    score = 'offered, good or bad.',
    comment = 'What the requester wrote, scrubbed.',
    reason = 'The reason chosen.',
    created_at = 'When it was made, UTC.',
    updated_at = 'When it last changed, UTC.',
    loaded_at = 'When this version of the row was read, UTC; strictly rising from load to load.'
  ),
  audits (not_null(columns := rating_id), unique_values(columns := rating_id))
);

SELECT
  id::BIGINT AS rating_id,
  ticket_id::BIGINT AS ticket_id,
  requester_id::BIGINT AS requester_id,
  assignee_id::BIGINT AS assignee_id,
  group_id::BIGINT AS group_id,
  score::TEXT AS score,
  comment::TEXT AS comment,
  reason::TEXT AS reason,
  (
    created_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS created_at,
  (
    updated_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS updated_at,
  (
    _loaded_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS loaded_at
FROM raw_zendesk.satisfaction_ratings
