AUDIT (
  name not_after_the_report_day
);

/* Where the report's time zone is ahead of UTC its day begins earlier, where it is behind a UTC day does. */
SELECT
  *
FROM @this_model
WHERE
  @day > @execution_ts::TIMESTAMP::DATE
  AND @day > @report_date(@execution_ts::TIMESTAMP)
