AUDIT (
  name not_in_the_future
);

SELECT
  *
FROM @this_model
WHERE
  @column > @execution_ts::TIMESTAMP::DATE
