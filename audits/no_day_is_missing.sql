AUDIT (
  name no_day_is_missing
);

/* Each day is followed by the next one, and every order and payment has its day. */
SELECT
  date
FROM (
  SELECT
    date,
    LEAD(date) OVER (ORDER BY date) AS next_date
  FROM @this_model
) AS days
WHERE
  next_date <> date + INTERVAL '1' DAY
UNION ALL
SELECT
  order_date
FROM marts.order_facts
WHERE
  NOT order_date IN (
    SELECT
      date
    FROM @this_model
  )
UNION ALL
SELECT
  created_date
FROM marts.payment_facts
WHERE
  NOT created_date IN (
    SELECT
      date
    FROM @this_model
  )
