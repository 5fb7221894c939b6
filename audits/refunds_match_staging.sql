AUDIT (
  name refunds_match_staging
);

/* After every build the facts hold all refunds that staging holds of the live mode, per currency, the newest load of each, and its charge. */
WITH facts AS (
  SELECT
    currency,
    COUNT(*) AS refunds,
    SUM(amount) AS amount,
    COUNT(charge_loaded_at) AS with_charge,
    MAX(charge_loaded_at) AS charge_loaded_at,
    MAX(loaded_at) AS loaded_at
  FROM @this_model
  GROUP BY
    currency
), staged AS (
  SELECT
    refunds.currency,
    COUNT(*) AS refunds,
    SUM(refunds.amount) AS amount,
    COUNT(charges.loaded_at) AS with_charge,
    MAX(charges.loaded_at) AS charge_loaded_at,
    MAX(refunds.loaded_at) AS loaded_at
  FROM staging.stg_stripe__refunds AS refunds
  LEFT JOIN staging.stg_stripe__charges AS charges
    ON charges.charge_id = refunds.charge_id AND charges.is_live
  WHERE
    refunds.is_live AND NOT refunds.is_deleted
  GROUP BY
    refunds.currency
)
SELECT
  *
FROM facts
FULL OUTER JOIN staged
  ON facts.currency IS NOT DISTINCT FROM staged.currency
WHERE
  facts.refunds IS DISTINCT FROM staged.refunds
  OR facts.amount IS DISTINCT FROM staged.amount
  OR facts.with_charge IS DISTINCT FROM staged.with_charge
  OR facts.charge_loaded_at IS DISTINCT FROM staged.charge_loaded_at
  OR facts.loaded_at IS DISTINCT FROM staged.loaded_at
