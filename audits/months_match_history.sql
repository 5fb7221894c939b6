AUDIT (
  name months_match_history
);

/* Each month of a subscription says what the step of the history that held at its end says; none is after the newest load, and of subscriptions that go on none is missing. Comparisons only: an OR would make DuckDB compare every month with every step. */
SELECT
  months.subscription_id
FROM @this_model AS months
LEFT JOIN marts.subscription_history AS history
  ON history.subscription_id = months.subscription_id
  AND history.currency = months.currency
  AND history.valid_from < months.month + INTERVAL '1' MONTH
  AND COALESCE(history.valid_to, '9999-12-31'::TIMESTAMP) >= months.month + INTERVAL '1' MONTH
WHERE
  months.mrr IS DISTINCT FROM history.mrr OR months.month > history.known_until
UNION ALL
SELECT
  history.subscription_id
FROM (
  SELECT
    subscription_id,
    DATE_DIFF(
      'MONTH',
      MIN(valid_from),
      ARG_MAX(CASE WHEN basis = 'end' THEN valid_from ELSE known_until END, valid_from)
    ) + 1 AS months
  FROM marts.subscription_history
  GROUP BY
    subscription_id
) AS history
LEFT JOIN (
  SELECT
    subscription_id,
    COUNT(*) AS months
  FROM @this_model
  GROUP BY
    subscription_id
) AS held
  ON held.subscription_id = history.subscription_id
WHERE
  COALESCE(held.months, 0) <> GREATEST(history.months, 0)
