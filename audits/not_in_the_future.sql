AUDIT (
  name not_in_the_future
);

SELECT
  *
FROM @this_model
WHERE
  @day > @execution_ts::TIMESTAMP::DATE
