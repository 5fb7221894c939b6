MODEL (
  name marts.churned_customers,
  kind FULL,
  owner data,
  grain (customer_key, kind),
  description 'Customers who are gone, one row for each way in which they were customers. kind subscription (contractual): had MRR and has none now in any currency. kind orders (without a contract): bought, and then nothing for more days than config.yaml declares (churn_after_days), or is hardly expected to buy again (probability below churn_below_probability in every currency). Counted up to the last order day held, not to the day of the build. Who comes back has no row any more; marts.mrr_movements keeps the months.',
  column_descriptions (
    customer_key = 'The customer; see marts.identity_map.',
    kind = 'subscription or orders.',
    reason = 'subscription_ended; no_purchase (for more than churn_after_days) or hardly_alive (by the model of marts.customer_predictions).',
    last_active_date = 'Last day on which the customer was one, UTC: with MRR, or with an order.',
    churned_date = 'Day since which the customer counts as gone, UTC: the one on which MRR fell to 0, or churn_after_days days after the last order; where hardly_alive came before that, the last order day held.',
    days_since_last_order = 'Days from the last order to the last order day held; null for subscriptions.',
    probability_alive = 'Highest probability, 0 to 1, over the currencies that the customer bought in; null for subscriptions and where it is not predicted.'
  ),
  audits (
    not_null(columns := (customer_key, kind, reason, last_active_date, churned_date)),
    unique_combination_of_columns(columns := (customer_key, kind)),
    accepted_values("column" := reason, is_in := ('subscription_ended', 'no_purchase', 'hardly_alive')),
    churned_are_customers_who_left
  )
);

WITH identities AS (
  SELECT
    *
  FROM marts.identity_map
), with_mrr AS (
  SELECT
    *
  FROM marts.subscription_history
  WHERE
    mrr > 0
), subscribers AS (
  SELECT
    COALESCE(identities.customer_key, 'stripe:' || with_mrr.customer_id) AS customer_key,
    BOOL_OR(CAST(with_mrr.valid_to IS NULL AS BOOLEAN)) AS is_active,
    MAX(with_mrr.valid_to) AS ended_at
  FROM with_mrr
  LEFT JOIN identities
    ON identities.source = 'stripe' AND identities.source_key = with_mrr.customer_id
  GROUP BY
    COALESCE(identities.customer_key, 'stripe:' || with_mrr.customer_id)
), observation AS (
  SELECT
    MAX(last_order_date) AS end_date
  FROM marts.customer_lifetime_value
), buyers AS (
  SELECT
    identities.customer_key,
    MAX(lifetime.last_order_date) AS last_order_date,
    CASE
      WHEN COUNT(predicted.probability_alive) = COUNT(*)
      THEN MAX(predicted.probability_alive)
    END AS probability_alive
  FROM marts.customer_lifetime_value AS lifetime
  JOIN identities
    ON identities.source = 'postgres' AND identities.user_id = lifetime.user_id
  LEFT JOIN marts.customer_predictions AS predicted
    ON predicted.user_id = lifetime.user_id AND predicted.currency = lifetime.currency
  GROUP BY
    identities.customer_key
), judged AS (
  SELECT
    buyers.customer_key,
    buyers.last_order_date,
    observation.end_date,
    DATE_DIFF('DAY', buyers.last_order_date, observation.end_date) AS days_since_last_order,
    buyers.probability_alive,
    COALESCE(buyers.probability_alive < @churn_below_probability, FALSE) AS is_hardly_alive
  FROM buyers
  CROSS JOIN observation
)
SELECT
  customer_key::TEXT AS customer_key,
  'subscription'::TEXT AS kind,
  'subscription_ended'::TEXT AS reason,
  ended_at::DATE AS last_active_date,
  ended_at::DATE AS churned_date,
  NULL::INT AS days_since_last_order,
  NULL::DOUBLE AS probability_alive
FROM subscribers
WHERE
  NOT is_active
UNION ALL
SELECT
  customer_key::TEXT,
  'orders'::TEXT,
  CASE
    WHEN days_since_last_order > @churn_after_days
    THEN 'no_purchase'
    ELSE 'hardly_alive'
  END::TEXT,
  last_order_date::DATE,
  CASE
    WHEN days_since_last_order > @churn_after_days
    THEN last_order_date + @churn_after_days
    ELSE end_date
  END::DATE,
  days_since_last_order::INT,
  probability_alive::DOUBLE
FROM judged
WHERE
  days_since_last_order > @churn_after_days OR is_hardly_alive
