MODEL (
  name marts.ticket_status_history,
  kind FULL,
  owner data,
  grain (ticket_id, step),
  references ticket_id,
  description 'Every status that a ticket had, one row each, from its opening to what it is now. Where events were never loaded, the ticket itself says how it began and what became of it.',
  column_descriptions (
    ticket_id = 'Key of the ticket; see marts.ticket_facts.',
    step = 'Number of the status among those of the ticket, from 1.',
    status = 'new, open, pending, hold, solved, closed or deleted.',
    state = 'open (new, open, pending and hold), solved (solved and closed) or deleted: what counts in the backlog.',
    previous_state = 'State of the step before; null for the opening.',
    valid_from = 'Since when, UTC.',
    valid_to = 'Until when, UTC; null for the present one.',
    basis = 'event, or ticket where no event tells of it.'
  ),
  audits (
    not_null(columns := (ticket_id, step, state, valid_from)),
    unique_combination_of_columns(columns := (ticket_id, step)),
    statuses_match_tickets
  )
);

WITH tickets AS (
  SELECT
    ticket_id,
    created_at,
    CASE WHEN is_deleted THEN 'deleted' ELSE status END AS status,
    COALESCE(deleted_at, updated_at, created_at) AS changed_at
  FROM staging.stg_zendesk__tickets
), told AS (
  SELECT
    tickets.ticket_id,
    GREATEST(history.changed_at, tickets.created_at) AS valid_from,
    history.change_id,
    history.change,
    history.value AS status,
    history.previous_value
  FROM staging.stg_zendesk__ticket_field_history AS history
  INNER JOIN tickets
    ON tickets.ticket_id = history.ticket_id
  WHERE
    history.field = 'status' AND NOT history.value IS NULL
), ends AS (
  SELECT
    ticket_id,
    BOOL_OR(CAST(change = 'create' AS BOOLEAN)) AS begins_with_its_opening,
    ARG_MIN(previous_value, (valid_from, change_id)) AS first_status,
    ARG_MAX(status, (valid_from, change_id)) AS last_status,
    MAX(valid_from) AS last_at
  FROM told
  GROUP BY
    ticket_id
), steps AS (
  SELECT
    ticket_id,
    valid_from,
    1 AS place,
    change_id,
    status,
    'event' AS basis
  FROM told
  UNION ALL
  SELECT
    tickets.ticket_id,
    tickets.created_at,
    0,
    0,
    CASE
      WHEN NOT ends.ticket_id IS NULL
      THEN COALESCE(ends.first_status, 'new')
      WHEN tickets.status IN ('solved', 'closed', 'deleted')
      THEN 'new'
      ELSE tickets.status
    END,
    'ticket'
  FROM tickets
  LEFT JOIN ends
    ON ends.ticket_id = tickets.ticket_id
  WHERE
    NOT COALESCE(ends.begins_with_its_opening, FALSE)
  UNION ALL
  SELECT
    tickets.ticket_id,
    GREATEST(tickets.changed_at, COALESCE(ends.last_at, tickets.created_at)),
    2,
    0,
    tickets.status,
    'ticket'
  FROM tickets
  LEFT JOIN ends
    ON ends.ticket_id = tickets.ticket_id
  WHERE
    CASE
      WHEN ends.ticket_id IS NULL
      THEN tickets.status IN ('solved', 'closed', 'deleted')
      ELSE tickets.status <> ends.last_status AND tickets.changed_at >= ends.last_at
    END
), stated AS (
  SELECT
    ticket_id,
    ROW_NUMBER() OVER (PARTITION BY ticket_id ORDER BY valid_from, place, change_id) AS step,
    status,
    CASE
      WHEN status IN ('solved', 'closed')
      THEN 'solved'
      WHEN status = 'deleted'
      THEN 'deleted'
      ELSE 'open'
    END AS state,
    valid_from,
    basis
  FROM steps
)
SELECT
  ticket_id::BIGINT AS ticket_id,
  step::INT AS step,
  status::TEXT AS status,
  state::TEXT AS state,
  LAG(state) OVER each_ticket::TEXT AS previous_state,
  valid_from::TIMESTAMP AS valid_from,
  LEAD(valid_from) OVER each_ticket::TIMESTAMP AS valid_to,
  basis::TEXT AS basis
FROM stated
WINDOW each_ticket AS (PARTITION BY ticket_id ORDER BY step)
