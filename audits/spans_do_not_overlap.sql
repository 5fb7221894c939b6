AUDIT (
  name spans_do_not_overlap
);

/* No schedule is open twice at a time, and each span counts those before it, or business time would be counted twice. */
SELECT
  later.schedule_id
FROM (
  SELECT
    schedule_id,
    opens_at,
    closes_at,
    seconds_before,
    LAG(opens_at) OVER each_schedule AS opened_at,
    LAG(closes_at) OVER each_schedule AS closed_at,
    LAG(seconds_before) OVER each_schedule AS before_that
  FROM @this_model
  WINDOW each_schedule AS (PARTITION BY schedule_id ORDER BY opens_at)
) AS later
WHERE
  later.opens_at >= later.closes_at
  OR later.opens_at < later.closed_at
  OR later.seconds_before <> COALESCE(later.before_that + DATE_DIFF('SECOND', later.opened_at, later.closed_at), 0)
