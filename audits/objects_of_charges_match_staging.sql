AUDIT (
  name objects_of_charges_match_staging
);

/* After every build the facts hold all objects of a kind (refunds, disputes) that staging holds of the live mode, per currency, the newest load of each, and its charge. */
WITH facts AS (
  SELECT
    currency,
    COUNT(*) AS objects,
    SUM(amount) AS amount,
    COUNT(charge_loaded_at) AS with_charge,
    MAX(charge_loaded_at) AS charge_loaded_at,
    MAX(loaded_at) AS loaded_at
  FROM @this_model
  GROUP BY
    currency
), staged AS (
  SELECT
    objects.currency,
    COUNT(*) AS objects,
    SUM(objects.amount) AS amount,
    COUNT(charges.loaded_at) AS with_charge,
    MAX(charges.loaded_at) AS charge_loaded_at,
    MAX(objects.loaded_at) AS loaded_at
  FROM @staged AS objects
  LEFT JOIN staging.stg_stripe__charges AS charges
    ON charges.charge_id = objects.charge_id AND charges.is_live
  WHERE
    objects.is_live AND NOT objects.is_deleted
  GROUP BY
    objects.currency
)
SELECT
  *
FROM facts
FULL OUTER JOIN staged
  ON facts.currency IS NOT DISTINCT FROM staged.currency
WHERE
  facts.objects IS DISTINCT FROM staged.objects
  OR facts.amount IS DISTINCT FROM staged.amount
  OR facts.with_charge IS DISTINCT FROM staged.with_charge
  OR facts.charge_loaded_at IS DISTINCT FROM staged.charge_loaded_at
  OR facts.loaded_at IS DISTINCT FROM staged.loaded_at
