AUDIT (
  name tickets_match_staging
);

/* The facts hold every ticket of staging as it was loaded last, and each has as many public replies, ratings and re-openings as there are in staging and in its history. */
SELECT
  COALESCE(facts.ticket_id, tickets.ticket_id) AS ticket_id
FROM @this_model AS facts
FULL OUTER JOIN staging.stg_zendesk__tickets AS tickets
  ON tickets.ticket_id = facts.ticket_id
LEFT JOIN (
  SELECT
    ticket_id,
    COUNT(*) FILTER(WHERE
      state = 'open' AND previous_state = 'solved') AS reopens,
    ARG_MAX(state, step) AS state
  FROM marts.ticket_status_history
  GROUP BY
    ticket_id
) AS history
  ON history.ticket_id = tickets.ticket_id
LEFT JOIN (
  SELECT
    ticket_id,
    COUNT(*) AS public_comments
  FROM staging.stg_zendesk__ticket_comments
  WHERE
    is_public
  GROUP BY
    ticket_id
) AS comments
  ON comments.ticket_id = tickets.ticket_id
WHERE
  facts.ticket_id IS NULL
  OR tickets.ticket_id IS NULL
  OR facts.status IS DISTINCT FROM tickets.status
  OR facts.is_deleted <> COALESCE(tickets.is_deleted, FALSE)
  OR facts.loaded_at <> tickets.loaded_at
  OR facts.reopens <> history.reopens
  OR (
    history.state = 'solved'
  ) <> NOT facts.solved_at IS NULL
  AND history.state <> 'deleted'
  OR facts.agent_replies > COALESCE(comments.public_comments, 0)
