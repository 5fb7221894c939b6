AUDIT (
  name statuses_match_tickets
);

/* Every ticket of staging has an unbroken row of steps from its opening on; what the last one says is what the ticket says, unless events are newer than it. */
SELECT
  COALESCE(held.ticket_id, tickets.ticket_id) AS ticket_id
FROM (
  SELECT
    ticket_id,
    COUNT(*) AS steps,
    MAX(step) AS last_step,
    MIN(valid_from) AS opened_at,
    MAX(valid_from) AS last_at,
    COUNT(*) FILTER(WHERE
      valid_to IS NULL) AS present,
    COUNT(*) FILTER(WHERE
      previous_state IS NULL) AS openings,
    ARG_MAX(state, step) AS state
  FROM @this_model
  GROUP BY
    ticket_id
) AS held
FULL OUTER JOIN staging.stg_zendesk__tickets AS tickets
  ON tickets.ticket_id = held.ticket_id
WHERE
  held.ticket_id IS NULL
  OR tickets.ticket_id IS NULL
  OR held.steps <> held.last_step
  OR held.present <> 1
  OR held.openings <> 1
  OR held.opened_at <> tickets.created_at
  OR (
    held.last_at <= COALESCE(tickets.deleted_at, tickets.updated_at)
    AND held.state <> CASE
      WHEN tickets.is_deleted
      THEN 'deleted'
      WHEN tickets.status IN ('solved', 'closed')
      THEN 'solved'
      ELSE 'open'
    END
  )
