AUDIT (
  name backlog_adds_up
);

/* On each day start + opened + reopened - solved - deleted = end, no day is missing, each begins as the one before ended, each ends with the tickets whose status then was an open one, and each opened as many tickets as the facts say. */
WITH days AS (
  SELECT
    date,
    open_at_start,
    opened,
    reopened,
    solved,
    deleted,
    open_at_end,
    LAG(date) OVER (ORDER BY date) AS day_before,
    COALESCE(LAG(open_at_end) OVER (ORDER BY date), 0) AS open_before
  FROM @this_model
), then_open AS (
  SELECT
    days.date,
    COUNT(*) AS tickets
  FROM days
  INNER JOIN marts.ticket_status_history AS history
    ON @report_date(history.valid_from) <= days.date
    AND COALESCE(@report_date(history.valid_to), '9999-12-31'::DATE) > days.date
  WHERE
    history.state = 'open'
  GROUP BY
    days.date
), came_in AS (
  SELECT
    created_date,
    COUNT(*) AS tickets
  FROM marts.ticket_facts
  GROUP BY
    created_date
)
SELECT
  COALESCE(days.date, came_in.created_date) AS date
FROM days
LEFT JOIN then_open
  ON then_open.date = days.date
FULL OUTER JOIN came_in
  ON came_in.created_date = days.date
WHERE
  days.date IS NULL
  OR days.open_at_start + days.opened + days.reopened - days.solved - days.deleted <> days.open_at_end
  OR days.open_at_start <> days.open_before
  OR days.date <> days.day_before + INTERVAL '1' DAY
  OR days.open_at_end <> COALESCE(then_open.tickets, 0)
  OR days.opened <> COALESCE(came_in.tickets, 0)
