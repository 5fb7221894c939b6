MODEL (
  name marts.subscription_facts,
  kind FULL,
  owner data,
  grain subscription_id,
  description 'Every subscription of the live mode, one row each, as Stripe last stated it, with what it is worth a month now; deleted ones too, as ended.',
  column_descriptions (
    subscription_id = 'Stripe''s id of the subscription.',
    customer_id = 'Customer who subscribed; see staging.stg_stripe__customers.',
    status = 'incomplete, incomplete_expired, trialing, active, past_due, canceled, unpaid or paused.',
    is_active = 'Whether it counts now: active or past due, collection not paused, not ended.',
    is_collection_paused = 'Whether the collection of payments is paused.',
    cancel_at_period_end = 'Whether it ends with the present period; until then it counts.',
    created_at = 'When Stripe made the subscription, UTC.',
    started_at = 'When it began, UTC; before created_at where it was backdated.',
    trial_started_at = 'When the trial began, UTC.',
    trial_ended_at = 'When the trial ended or will end, UTC.',
    canceled_at = 'When its end was decided, UTC.',
    ended_at = 'When it ended, UTC; null while it has not.',
    currency = 'ISO 4217 code of the MRR, upper case; never add amounts of different currencies.',
    mrr = 'What it is worth a month now, by the rule of marts.subscription_history.',
    quantity = 'Units of its items now; 0 while it does not count.',
    items_without_price = 'Items of it that are worth 0 because they have no price a unit.',
    loaded_at = 'When this state was loaded, UTC.'
  ),
  audits (
    not_null(columns := (subscription_id, is_active, mrr, quantity)),
    unique_values(columns := subscription_id),
    amount_is_valid(amount := mrr),
    subscriptions_match_staging
  )
);

WITH subscriptions AS (
  SELECT
    *
  FROM staging.stg_stripe__subscriptions
  WHERE
    is_live
)
SELECT
  subscriptions.subscription_id::TEXT AS subscription_id,
  subscriptions.customer_id::TEXT AS customer_id,
  subscriptions.status::TEXT AS status,
  COALESCE(history.is_active, FALSE)::BOOLEAN AS is_active,
  subscriptions.is_collection_paused::BOOLEAN AS is_collection_paused,
  subscriptions.is_canceled_at_period_end::BOOLEAN AS cancel_at_period_end,
  subscriptions.created_at::TIMESTAMP AS created_at,
  COALESCE(subscriptions.start_at, subscriptions.created_at)::TIMESTAMP AS started_at,
  subscriptions.trial_start_at::TIMESTAMP AS trial_started_at,
  subscriptions.trial_end_at::TIMESTAMP AS trial_ended_at,
  subscriptions.canceled_at::TIMESTAMP AS canceled_at,
  COALESCE(
    subscriptions.ended_at,
    CASE WHEN history.basis = 'end' THEN history.valid_from END
  )::TIMESTAMP AS ended_at,
  subscriptions.currency::TEXT AS currency,
  COALESCE(history.mrr, 0)::DECIMAL(38, 6) AS mrr,
  COALESCE(history.quantity, 0)::BIGINT AS quantity,
  COALESCE(history.items_without_price, 0)::BIGINT AS items_without_price,
  subscriptions.loaded_at::TIMESTAMP AS loaded_at
FROM subscriptions
LEFT JOIN marts.subscription_history AS history
  ON history.subscription_id = subscriptions.subscription_id
  AND history.valid_to IS NULL
