MODEL (
  name marts.refund_facts,
  kind INCREMENTAL_BY_UNIQUE_KEY (
    unique_key refund_id
  ),
  owner data,
  grain refund_id,
  description 'Every refund, one row each, with what it did to the balance, on its own day, however long after the charge. Built from what was loaded since the last build of any of its three inputs, each by its own time. Only the live mode; a deleted refund leaves, in the statement at the end.',
  column_descriptions (
    refund_id = 'Stripe''s id of the refund.',
    charge_id = 'Charge that is refunded; see marts.payment_facts.',
    customer_id = 'Customer of that charge; null for a guest, or until the charge is loaded.',
    payment_intent_id = 'Payment intent of that charge.',
    created_at = 'When the refund was made, UTC.',
    report_date = 'Day on which the refund was made, in the report''s time zone.',
    status = 'pending, requires_action, succeeded, failed or canceled.',
    reason = 'duplicate, fraudulent, requested_by_customer or expired_uncaptured_charge.',
    currency = 'ISO 4217 code of the amount, that of the charge, upper case.',
    amount = 'What is given back.',
    moved_balance = 'Whether it is money given back: it moved the balance and neither failed nor was canceled. A released authorisation is not.',
    settlement_currency = 'ISO 4217 code in which the account is paid; fee and settled amounts are in this one. Null until it is known.',
    settled_amount = 'What the refund did to the balance before fees; negative, and 0 after it failed and the money came back.',
    fee = 'What Stripe took for the refund; negative where it gave a fee back.',
    settled_net = 'What the refund did to the balance after fees.',
    loaded_at = 'When this version of the refund was loaded, UTC.',
    charge_loaded_at = 'When its charge was loaded, UTC.',
    balance_loaded_at = 'When the newest of its balance transactions was loaded, UTC.',
    is_deleted = 'Whether it was deleted in Stripe. Always false here.'
  ),
  audits (
    not_null(columns := (refund_id, created_at, report_date, currency, amount, moved_balance)),
    unique_values(columns := refund_id),
    amount_is_valid(amount := amount),
    not_after_the_report_day(day := report_date),
    objects_of_charges_match_staging(staged := staging.stg_stripe__refunds)
  )
);

WITH all_refunds AS (
  SELECT
    *
  FROM staging.stg_stripe__refunds
  WHERE
    is_live
), charges AS (
  SELECT
    *
  FROM staging.stg_stripe__charges
  WHERE
    is_live
), movements AS (
  SELECT
    *
  FROM marts.balance_transaction_facts
  WHERE
    category = 'refunds'
), linked AS (
  SELECT
    all_refunds.refund_id,
    movements.balance_transaction_id
  FROM movements
  JOIN all_refunds
    ON all_refunds.refund_id = movements.source_id
  UNION
  SELECT
    all_refunds.refund_id,
    movements.balance_transaction_id
  FROM movements
  JOIN all_refunds
    ON all_refunds.balance_transaction_id = movements.balance_transaction_id
), settled AS (
  SELECT
    linked.refund_id,
    movements.currency,
    SUM(movements.amount) AS amount,
    SUM(movements.fee) AS fee,
    SUM(movements.net) AS net,
    MAX(movements.loaded_at) AS loaded_at
  FROM linked
  JOIN movements
    ON movements.balance_transaction_id = linked.balance_transaction_id
  GROUP BY
    linked.refund_id,
    movements.currency
), refunds AS (
  SELECT
    all_refunds.refund_id,
    all_refunds.charge_id,
    charges.customer_id,
    all_refunds.payment_intent_id,
    all_refunds.created_at,
    all_refunds.status,
    all_refunds.reason,
    all_refunds.currency,
    all_refunds.amount,
    COALESCE(
      NOT all_refunds.balance_transaction_id IS NULL
      AND NOT all_refunds.status IN ('failed', 'canceled'),
      FALSE
    ) AS moved_balance,
    settled.currency AS settlement_currency,
    settled.amount AS settled_amount,
    settled.fee,
    settled.net AS settled_net,
    all_refunds.loaded_at,
    charges.loaded_at AS charge_loaded_at,
    settled.loaded_at AS balance_loaded_at,
    all_refunds.is_deleted
  FROM all_refunds
  LEFT JOIN charges
    ON charges.charge_id = all_refunds.charge_id
  LEFT JOIN settled
    ON settled.refund_id = all_refunds.refund_id
)
SELECT
  refund_id::TEXT AS refund_id,
  charge_id::TEXT AS charge_id,
  customer_id::TEXT AS customer_id,
  payment_intent_id::TEXT AS payment_intent_id,
  created_at::TIMESTAMP AS created_at,
  @report_date(created_at)::DATE AS report_date,
  status::TEXT AS status,
  reason::TEXT AS reason,
  currency::TEXT AS currency,
  amount::DECIMAL(38, 3) AS amount,
  moved_balance::BOOLEAN AS moved_balance,
  settlement_currency::TEXT AS settlement_currency,
  settled_amount::DECIMAL(38, 3) AS settled_amount,
  fee::DECIMAL(38, 3) AS fee,
  settled_net::DECIMAL(38, 3) AS settled_net,
  loaded_at::TIMESTAMP AS loaded_at,
  charge_loaded_at::TIMESTAMP AS charge_loaded_at,
  balance_loaded_at::TIMESTAMP AS balance_loaded_at,
  is_deleted::BOOLEAN AS is_deleted
FROM refunds
WHERE
  @loaded_since_last_build(loaded_at)
  OR @loaded_since_last_build(charge_loaded_at)
  OR @loaded_since_last_build(balance_loaded_at);

@IF(@runtime_stage = 'evaluating', DELETE FROM @this_model
WHERE
  is_deleted)
