AUDIT (
  name amount_is_valid
);

/* NaN compares as greater than every number, so it needs a test of its own. */
SELECT
  *
FROM @this_model
WHERE
  @amount < 0 OR ISNAN(@amount::DOUBLE)
