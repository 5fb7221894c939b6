MODEL (
  name marts.payment_facts,
  kind INCREMENTAL_BY_UNIQUE_KEY (
    unique_key charge_id
  ),
  owner data,
  grain charge_id,
  description 'Every attempt to take money through Stripe, one row each, with what came back and what it cost. Built from what was loaded since the last build of any of its four inputs, each by its own time, so a charge of last year that is refunded today is built anew. Only the live mode; a charge deleted in Stripe leaves, in the statement at the end.',
  column_descriptions (
    charge_id = 'Stripe''s id of the charge.',
    customer_id = 'Customer who was charged; see staging.stg_stripe__customers. Null for a guest.',
    payment_intent_id = 'Payment intent that made the attempt; several attempts can share one.',
    created_at = 'When the charge was made, UTC.',
    created_date = 'UTC day on which the charge was made.',
    status = 'succeeded, pending or failed.',
    is_captured = 'Whether the money was taken, not only reserved.',
    currency = 'ISO 4217 code of the amounts, upper case; never add amounts of different currencies.',
    amount = 'What was to be taken, in the currency''s main unit.',
    amount_captured = 'What was taken.',
    amount_refunded = 'What was given back of it: refunds that moved the balance. A released authorisation is none.',
    net_amount = 'What was taken and not given back. Fees and disputes are not subtracted.',
    refunds = 'Refunds that moved the balance.',
    disputes = 'How often the customer asked the bank for the money, whatever came of it.',
    amount_disputed = 'Sum of these disputes, of those in the currency of the charge; more than the amount where it was disputed twice.',
    settlement_currency = 'ISO 4217 code in which the account is paid; fee and settled amounts are in this one, not in `currency`. Null until it is known.',
    settled_amount = 'The charge in the settlement currency, before the fee.',
    fee = 'What Stripe took for the charge, in the settlement currency; refunds do not give it back.',
    settled_net = 'The charge in the settlement currency, after the fee.',
    loaded_at = 'When this version of the charge was loaded, UTC.',
    refunds_loaded_at = 'When the newest of its refunds was loaded, UTC.',
    disputes_loaded_at = 'When the newest of its disputes was loaded, UTC.',
    balance_loaded_at = 'When its balance transaction, which says the fee, was loaded, UTC.',
    is_deleted = 'Whether it was deleted in Stripe. Always false here: deleted charges leave the facts and stay in staging.'
  ),
  audits (
    not_null(
      columns := (
        charge_id,
        created_at,
        created_date,
        status,
        currency,
        amount,
        amount_captured,
        amount_refunded,
        net_amount
      )
    ),
    unique_values(columns := charge_id),
    amount_is_valid(amount := amount),
    not_in_the_future(day := created_date),
    payments_match_staging
  )
);

WITH charges AS (
  SELECT
    *
  FROM staging.stg_stripe__charges
  WHERE
    is_live
), all_refunds AS (
  SELECT
    *
  FROM staging.stg_stripe__refunds
  WHERE
    is_live
), all_disputes AS (
  SELECT
    *
  FROM staging.stg_stripe__disputes
  WHERE
    is_live
), balance_transactions AS (
  SELECT
    *
  FROM staging.stg_stripe__balance_transactions
  WHERE
    is_live
), refunded AS (
  SELECT
    charge_id,
    currency,
    COUNT(*) FILTER(WHERE
      moved_balance) AS refunds,
    SUM(amount) FILTER(WHERE
      moved_balance) AS amount,
    MAX(loaded_at) AS loaded_at
  FROM (
    SELECT
      charge_id,
      currency,
      amount,
      loaded_at,
      NOT is_deleted
      AND NOT balance_transaction_id IS NULL
      AND NOT status IN ('failed', 'canceled') AS moved_balance
    FROM all_refunds
  ) AS judged
  GROUP BY
    charge_id,
    currency
), disputed AS (
  SELECT
    all_disputes.charge_id,
    COUNT(*) AS disputes,
    SUM(all_disputes.amount) FILTER(WHERE
      all_disputes.currency = charges.currency) AS amount,
    MAX(all_disputes.loaded_at) AS loaded_at
  FROM all_disputes
  JOIN charges
    ON charges.charge_id = all_disputes.charge_id
  GROUP BY
    all_disputes.charge_id
), payments AS (
  SELECT
    charges.charge_id,
    charges.customer_id,
    charges.payment_intent_id,
    charges.created_at,
    charges.status,
    charges.is_captured,
    charges.currency,
    charges.amount,
    charges.amount_captured,
    COALESCE(refunded.amount, 0) AS amount_refunded,
    COALESCE(refunded.refunds, 0) AS refunds,
    COALESCE(disputed.disputes, 0) AS disputes,
    COALESCE(disputed.amount, 0) AS amount_disputed,
    balance_transactions.currency AS settlement_currency,
    balance_transactions.amount AS settled_amount,
    balance_transactions.fee,
    balance_transactions.net AS settled_net,
    charges.loaded_at,
    refunded.loaded_at AS refunds_loaded_at,
    disputed.loaded_at AS disputes_loaded_at,
    balance_transactions.loaded_at AS balance_loaded_at,
    charges.is_deleted
  FROM charges
  LEFT JOIN refunded
    ON refunded.charge_id = charges.charge_id AND refunded.currency = charges.currency
  LEFT JOIN disputed
    ON disputed.charge_id = charges.charge_id
  LEFT JOIN balance_transactions
    ON balance_transactions.balance_transaction_id = charges.balance_transaction_id
)
SELECT
  charge_id::TEXT AS charge_id,
  customer_id::TEXT AS customer_id,
  payment_intent_id::TEXT AS payment_intent_id,
  created_at::TIMESTAMP AS created_at,
  created_at::DATE AS created_date,
  status::TEXT AS status,
  is_captured::BOOLEAN AS is_captured,
  currency::TEXT AS currency,
  amount::DECIMAL(38, 3) AS amount,
  amount_captured::DECIMAL(38, 3) AS amount_captured,
  amount_refunded::DECIMAL(38, 3) AS amount_refunded,
  (
    amount_captured - amount_refunded
  )::DECIMAL(38, 3) AS net_amount,
  refunds::BIGINT AS refunds,
  disputes::BIGINT AS disputes,
  amount_disputed::DECIMAL(38, 3) AS amount_disputed,
  settlement_currency::TEXT AS settlement_currency,
  settled_amount::DECIMAL(38, 3) AS settled_amount,
  fee::DECIMAL(38, 3) AS fee,
  settled_net::DECIMAL(38, 3) AS settled_net,
  loaded_at::TIMESTAMP AS loaded_at,
  refunds_loaded_at::TIMESTAMP AS refunds_loaded_at,
  disputes_loaded_at::TIMESTAMP AS disputes_loaded_at,
  balance_loaded_at::TIMESTAMP AS balance_loaded_at,
  is_deleted::BOOLEAN AS is_deleted
FROM payments
WHERE
  @loaded_since_last_build(loaded_at)
  OR @loaded_since_last_build(refunds_loaded_at)
  OR @loaded_since_last_build(disputes_loaded_at)
  OR @loaded_since_last_build(balance_loaded_at);

@IF(@runtime_stage = 'evaluating', DELETE FROM @this_model
WHERE
  is_deleted)
