MODEL (
  name staging.stg_zendesk__tickets,
  kind VIEW,
  owner data,
  grain ticket_id,
  description 'One row a ticket of Zendesk, deleted ones among them; free text arrives here scrubbed.',
  column_descriptions (
    ticket_id = 'Key of the ticket in Zendesk.',
    requester_id = 'The user who asked.',
    assignee_id = 'The agent who answers; null when nobody does yet.',
    organization_id = 'The organization of the requester.',
    group_id = 'The group of agents that the ticket is given to.',
    brand_id = 'The brand that was asked.',
    subject = 'Subject, without emails, card, social security and telephone numbers.',
    description = 'First comment, scrubbed as the subject is.',
    status = 'new, open, pending, hold, solved or closed; of a deleted ticket the last one.',
    priority = 'low, normal, high or urgent; null when not set.',
    ticket_type = 'question, incident, problem or task; null when not set.',
    channel = 'How the ticket came in.',
    satisfaction_score = 'unoffered, offered, good or bad.',
    tags = 'Tags, a JSON list.',
    custom_fields = 'Custom fields that have a value, a JSON object by field id; each is a column of the raw table as well.',
    generated_timestamp = 'When anything of the ticket changed last, the system included, in Unix seconds.',
    created_at = 'When the ticket was opened, UTC.',
    updated_at = 'When the ticket last changed by an event, UTC.',
    is_deleted = 'Whether the ticket was deleted.',
    deleted_at = 'When the ticket was deleted, UTC; null while it is there.',
    loaded_at = 'When this version of the row was read, UTC; strictly rising from load to load.'
  ),
  audits (not_null(columns := ticket_id), unique_values(columns := ticket_id))
);

SELECT
  id::BIGINT AS ticket_id,
  requester_id::BIGINT AS requester_id,
  assignee_id::BIGINT AS assignee_id,
  organization_id::BIGINT AS organization_id,
  group_id::BIGINT AS group_id,
  brand_id::BIGINT AS brand_id,
  subject::TEXT AS subject,
  description::TEXT AS description,
  status::TEXT AS status,
  priority::TEXT AS priority,
  type::TEXT AS ticket_type,
  via_channel::TEXT AS channel,
  satisfaction_score::TEXT AS satisfaction_score,
  tags::TEXT AS tags,
  custom_fields::TEXT AS custom_fields,
  generated_timestamp::BIGINT AS generated_timestamp,
  (
    created_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS created_at,
  (
    updated_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS updated_at,
  is_deleted::BOOLEAN AS is_deleted,
  (
    deleted_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS deleted_at,
  (
    _loaded_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS loaded_at
FROM raw_zendesk.tickets
