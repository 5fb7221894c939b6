MODEL (
  name staging.stg_zendesk__ticket_comments,
  kind VIEW,
  owner data,
  grain comment_id,
  description 'One row a comment of a ticket, public or internal; the text arrives here scrubbed.',
  column_descriptions (
    comment_id = 'Key of the comment in Zendesk.',
    ticket_id = 'The ticket.',
    event_id = 'The event that it came with.',
    author_id = 'The user who wrote it.',
    is_public = 'Whether the requester sees it.',
    body = 'Text, without emails, card, social security and telephone numbers.',
    attachment_count = 'How many files are attached.',
    commented_at = 'When it was written, UTC.',
    loaded_at = 'When this version of the row was read, UTC; strictly rising from load to load.'
  ),
  audits (not_null(columns := comment_id), unique_values(columns := comment_id))
);

SELECT
  id::BIGINT AS comment_id,
  ticket_id::BIGINT AS ticket_id,
  event_id::BIGINT AS event_id,
  author_id::BIGINT AS author_id,
  is_public::BOOLEAN AS is_public,
  body::TEXT AS body,
  attachments::BIGINT AS attachment_count,
  (
    commented_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS commented_at,
  (
    _loaded_at AT TIME ZONE 'UTC'
  )::TIMESTAMP AS loaded_at
FROM raw_zendesk.ticket_comments
