AUDIT (
  name subscriptions_match_staging
);

/* The facts hold each live subscription of staging, each counts only by its status, and what they are worth is the newest step of the history. */
WITH staged AS (
  SELECT
    subscription_id,
    status IN ('active', 'past_due')
    AND NOT is_collection_paused
    AND NOT is_deleted
    AND ended_at IS NULL
    AND NOT currency IS NULL AS is_active
  FROM staging.stg_stripe__subscriptions
  WHERE
    is_live
), held AS (
  SELECT
    subscription_id,
    mrr
  FROM marts.subscription_history
  WHERE
    valid_to IS NULL
)
SELECT
  facts.subscription_id
FROM @this_model AS facts
FULL OUTER JOIN staged
  ON staged.subscription_id = facts.subscription_id
LEFT JOIN held
  ON held.subscription_id = staged.subscription_id
WHERE
  facts.is_active IS DISTINCT FROM COALESCE(staged.is_active, FALSE)
  OR facts.mrr IS DISTINCT FROM COALESCE(held.mrr, 0)
