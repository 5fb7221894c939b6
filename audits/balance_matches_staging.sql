AUDIT (
  name balance_matches_staging
);

/* After every build the facts hold all movements that staging holds of the live mode, per currency, and the newest load. */
WITH facts AS (
  SELECT
    currency,
    COUNT(*) AS movements,
    SUM(amount) AS amount,
    SUM(fee) AS fee,
    SUM(net) AS net,
    MAX(loaded_at) AS loaded_at
  FROM @this_model
  GROUP BY
    currency
), staged AS (
  SELECT
    currency,
    COUNT(*) AS movements,
    SUM(amount) AS amount,
    SUM(fee) AS fee,
    SUM(net) AS net,
    MAX(loaded_at) AS loaded_at
  FROM staging.stg_stripe__balance_transactions
  WHERE
    is_live AND NOT is_deleted
  GROUP BY
    currency
)
SELECT
  *
FROM facts
FULL OUTER JOIN staged
  ON facts.currency IS NOT DISTINCT FROM staged.currency
WHERE
  facts.movements IS DISTINCT FROM staged.movements
  OR facts.amount IS DISTINCT FROM staged.amount
  OR facts.fee IS DISTINCT FROM staged.fee
  OR facts.net IS DISTINCT FROM staged.net
  OR facts.loaded_at IS DISTINCT FROM staged.loaded_at
