AUDIT (
  name churned_are_customers_who_left
);

/* Who is gone was a customer and is none now: every subscriber without MRR is there, none with MRR, and nobody who ordered of late without a reason. */
WITH subscribers AS (
  SELECT
    COALESCE(identities.customer_key, 'stripe:' || history.customer_id) AS customer_key,
    COUNT(*) FILTER(WHERE
      history.valid_to IS NULL) AS active
  FROM marts.subscription_history AS history
  LEFT JOIN marts.identity_map AS identities
    ON identities.source = 'stripe' AND identities.source_key = history.customer_id
  WHERE
    history.mrr > 0
  GROUP BY
    1
)
SELECT
  COALESCE(subscribers.customer_key, here.customer_key) AS customer_key
FROM (
  SELECT
    customer_key
  FROM subscribers
  WHERE
    active = 0
) AS subscribers
FULL OUTER JOIN (
  SELECT
    customer_key
  FROM @this_model
  WHERE
    kind = 'subscription'
) AS here
  ON here.customer_key = subscribers.customer_key
WHERE
  subscribers.customer_key IS NULL OR here.customer_key IS NULL
UNION ALL
SELECT
  customer_key
FROM @this_model
WHERE
  kind = 'orders'
  AND (
    days_since_last_order IS NULL
    OR churned_date < last_active_date
    OR (
      reason = 'hardly_alive' AND probability_alive IS NULL
    )
    OR (
      reason = 'no_purchase' AND days_since_last_order <= @churn_after_days
    )
  )
