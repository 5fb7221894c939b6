AUDIT (
  name history_is_whole
);

/* Each subscription has one step that holds now, and each step lasts until the next one begins. */
SELECT
  subscription_id
FROM (
  SELECT
    subscription_id,
    valid_from,
    valid_to,
    LEAD(valid_from) OVER (PARTITION BY subscription_id ORDER BY valid_from) AS next_from
  FROM @this_model
) AS steps
WHERE
  valid_to IS DISTINCT FROM next_from OR valid_to <= valid_from
UNION ALL
SELECT
  subscription_id
FROM staging.stg_stripe__subscriptions
WHERE
  is_live
  AND NOT currency IS NULL
  AND NOT subscription_id IN (
    SELECT
      subscription_id
    FROM @this_model
    WHERE
      valid_to IS NULL
  )
