AUDIT (
  name balance_reconciles
);

/* Nothing of the balance is outside the categories, payouts are what Stripe states, and the last balance is the sum of all movements. */
WITH balances AS (
  SELECT
    currency,
    SUM(movements) AS movements,
    SUM(balance_change) AS balance
  FROM @this_model
  GROUP BY
    currency
), staged AS (
  SELECT
    currency,
    COUNT(*) AS movements,
    SUM(net) AS balance
  FROM staging.stg_stripe__balance_transactions
  WHERE
    is_live AND NOT is_deleted
  GROUP BY
    currency
)
SELECT
  currency,
  date
FROM @this_model
WHERE
  difference <> 0
  OR payouts_difference <> 0
  OR running_difference <> 0
  OR running_payouts_difference <> 0
UNION ALL
SELECT
  COALESCE(balances.currency, staged.currency),
  NULL
FROM balances
FULL OUTER JOIN staged
  ON staged.currency = balances.currency
WHERE
  COALESCE(balances.movements, 0) <> COALESCE(staged.movements, 0)
  OR COALESCE(balances.balance, 0) <> COALESCE(staged.balance, 0)
