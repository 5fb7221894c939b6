MODEL (
  name marts.ticket_backlog_daily,
  kind FULL,
  owner data,
  grain date,
  depends_on (
    marts.ticket_facts
  ),
  description 'The tickets that wait for an answer, one row a day from the first ticket to the newest load: start + opened + reopened - solved - deleted = end. A ticket is open while it is new, open, pending or on hold. What is later deleted stays in the days in which it was open.',
  column_descriptions (
    date = 'Day in the report''s time zone.',
    open_at_start = 'Tickets open when the day began.',
    opened = 'Tickets that came in on this day.',
    reopened = 'How often a solved ticket was opened again.',
    solved = 'How often an open ticket was solved; one that came in solved is opened and solved.',
    deleted = 'Open tickets that were deleted, less deleted ones that came back open; negative on a day on which more came back.',
    open_at_end = 'Tickets open when the day ended; of the last day, at the newest load.'
  ),
  audits (
    not_null(columns := (date, open_at_start, opened, reopened, solved, deleted, open_at_end)),
    unique_values(columns := date),
    not_after_the_report_day(day := date),
    backlog_adds_up
  )
);

WITH moved AS (
  SELECT
    @report_date(valid_from) AS date,
    COUNT(*) FILTER(WHERE
      previous_state IS NULL) AS opened,
    COUNT(*) FILTER(WHERE
      state = 'open' AND previous_state = 'solved') AS reopened,
    COUNT(*) FILTER(WHERE
      state = 'solved' AND COALESCE(previous_state, 'open') = 'open') AS solved,
    COUNT(*) FILTER(WHERE
      state = 'deleted' AND COALESCE(previous_state, 'open') = 'open') - COUNT(*) FILTER(WHERE
      state = 'open' AND previous_state = 'deleted') AS deleted
  FROM marts.ticket_status_history
  GROUP BY
    @report_date(valid_from)
), days AS (
  SELECT
    UNNEST(
      GENERATE_SERIES(
        (
          SELECT
            MIN(date)
          FROM moved
        ),
        (
          SELECT
            GREATEST(@report_date(MAX(loaded_at)), (
              SELECT
                MAX(date)
              FROM moved
            ))
          FROM staging.stg_zendesk__tickets
        ),
        INTERVAL '1' DAY
      )
    )::DATE AS date
), counted AS (
  SELECT
    days.date,
    COALESCE(moved.opened, 0) AS opened,
    COALESCE(moved.reopened, 0) AS reopened,
    COALESCE(moved.solved, 0) AS solved,
    COALESCE(moved.deleted, 0) AS deleted,
    SUM(COALESCE(moved.opened + moved.reopened - moved.solved - moved.deleted, 0)) OVER (ORDER BY days.date) AS open_at_end
  FROM days
  LEFT JOIN moved
    ON moved.date = days.date
)
SELECT
  date::DATE AS date,
  (
    open_at_end - opened - reopened + solved + deleted
  )::BIGINT AS open_at_start,
  opened::BIGINT AS opened,
  reopened::BIGINT AS reopened,
  solved::BIGINT AS solved,
  deleted::BIGINT AS deleted,
  open_at_end::BIGINT AS open_at_end
FROM counted
