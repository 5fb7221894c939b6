AUDIT (
  name payments_match_staging
);

/* After every build the facts hold all that staging holds of the live mode: charges, refunds, disputes and fees, per currency, and the newest load of each. */
WITH charges AS (
  SELECT
    *
  FROM staging.stg_stripe__charges
  WHERE
    is_live AND NOT is_deleted
), moved AS (
  SELECT
    refunds.charge_id,
    refunds.amount,
    refunds.currency
  FROM staging.stg_stripe__refunds AS refunds
  WHERE
    refunds.is_live
    AND NOT refunds.is_deleted
    AND NOT refunds.balance_transaction_id IS NULL
    AND NOT refunds.status IN ('failed', 'canceled')
), facts AS (
  SELECT
    'charges' AS what,
    currency,
    COUNT(*) AS things,
    SUM(amount + amount_captured) AS amount,
    MAX(loaded_at) AS loaded_at
  FROM @this_model
  GROUP BY
    currency
  UNION ALL
  SELECT
    'refunds',
    currency,
    SUM(refunds),
    SUM(amount_refunded),
    NULL
  FROM @this_model
  WHERE
    refunds > 0
  GROUP BY
    currency
  UNION ALL
  SELECT
    'disputes',
    NULL,
    SUM(disputes),
    NULL,
    MAX(disputes_loaded_at)
  FROM @this_model
  WHERE
    disputes > 0
  UNION ALL
  SELECT
    'fees',
    settlement_currency,
    COUNT(*),
    SUM(settled_net + fee),
    MAX(balance_loaded_at)
  FROM @this_model
  WHERE
    NOT settlement_currency IS NULL
  GROUP BY
    settlement_currency
), staged AS (
  SELECT
    'charges' AS what,
    currency,
    COUNT(*) AS things,
    SUM(amount + amount_captured) AS amount,
    MAX(loaded_at) AS loaded_at
  FROM charges
  GROUP BY
    currency
  UNION ALL
  SELECT
    'refunds',
    charges.currency,
    COUNT(*),
    SUM(moved.amount),
    NULL
  FROM moved
  JOIN charges
    ON charges.charge_id = moved.charge_id AND charges.currency = moved.currency
  GROUP BY
    charges.currency
  UNION ALL
  SELECT
    'disputes',
    NULL,
    COUNT(*),
    NULL,
    MAX(disputes.loaded_at)
  FROM staging.stg_stripe__disputes AS disputes
  JOIN charges
    ON charges.charge_id = disputes.charge_id
  WHERE
    disputes.is_live
  HAVING
    COUNT(*) > 0
  UNION ALL
  SELECT
    'fees',
    movements.currency,
    COUNT(*),
    SUM(movements.net + movements.fee),
    MAX(movements.loaded_at)
  FROM staging.stg_stripe__balance_transactions AS movements
  JOIN charges
    ON charges.balance_transaction_id = movements.balance_transaction_id
  WHERE
    movements.is_live
  GROUP BY
    movements.currency
)
SELECT
  *
FROM facts
FULL OUTER JOIN staged
  ON facts.what = staged.what AND facts.currency IS NOT DISTINCT FROM staged.currency
WHERE
  facts.things IS DISTINCT FROM staged.things
  OR facts.amount IS DISTINCT FROM staged.amount
  OR facts.loaded_at IS DISTINCT FROM staged.loaded_at
