AUDIT (
  name disputes_match_staging
);

/* After every build the facts hold all disputes that staging holds of the live mode, per currency, the newest load of each, and its charge. */
WITH facts AS (
  SELECT
    currency,
    COUNT(*) AS disputes,
    SUM(amount) AS amount,
    COUNT(charge_loaded_at) AS with_charge,
    MAX(charge_loaded_at) AS charge_loaded_at,
    MAX(loaded_at) AS loaded_at
  FROM @this_model
  GROUP BY
    currency
), staged AS (
  SELECT
    disputes.currency,
    COUNT(*) AS disputes,
    SUM(disputes.amount) AS amount,
    COUNT(charges.loaded_at) AS with_charge,
    MAX(charges.loaded_at) AS charge_loaded_at,
    MAX(disputes.loaded_at) AS loaded_at
  FROM staging.stg_stripe__disputes AS disputes
  LEFT JOIN staging.stg_stripe__charges AS charges
    ON charges.charge_id = disputes.charge_id AND charges.is_live
  WHERE
    disputes.is_live AND NOT disputes.is_deleted
  GROUP BY
    disputes.currency
)
SELECT
  *
FROM facts
FULL OUTER JOIN staged
  ON facts.currency IS NOT DISTINCT FROM staged.currency
WHERE
  facts.disputes IS DISTINCT FROM staged.disputes
  OR facts.amount IS DISTINCT FROM staged.amount
  OR facts.with_charge IS DISTINCT FROM staged.with_charge
  OR facts.charge_loaded_at IS DISTINCT FROM staged.charge_loaded_at
  OR facts.loaded_at IS DISTINCT FROM staged.loaded_at
