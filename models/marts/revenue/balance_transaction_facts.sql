MODEL (
  name marts.balance_transaction_facts,
  kind INCREMENTAL_BY_UNIQUE_KEY (
    unique_key balance_transaction_id
  ),
  owner data,
  grain balance_transaction_id,
  description 'Every movement of the account''s balance at Stripe, one row each, in exactly one category. Only the live mode. Built from what was loaded since the last build; what is deleted leaves, in the statement at the end.',
  column_descriptions (
    balance_transaction_id = 'Stripe''s id of the balance transaction.',
    source_id = 'What moved the balance: a charge, a refund, a dispute, a payout or another.',
    type = 'Kind of movement in Stripe''s words.',
    reporting_category = 'Kind of movement as Stripe''s own reports group it.',
    category = 'Column of marts.balance_reconciliation in which the amount counts; `other` for a reporting_category that is not declared here.',
    currency = 'ISO 4217 code in which the account is paid, upper case; never add amounts of different currencies.',
    amount = 'Movement before the fee; negative for money that leaves.',
    fee = 'What Stripe took for this movement; negative where it gave a fee back.',
    net = 'Movement after the fee.',
    created_at = 'When the balance moved, UTC.',
    created_date = 'UTC day on which the balance moved.',
    report_date = 'Day on which the balance moved, in the report''s time zone.',
    available_at = 'When the money can be paid out, UTC.',
    loaded_at = 'When this version was loaded, UTC.',
    is_deleted = 'Whether it was deleted in Stripe. Always false here.'
  ),
  audits (
    not_null(
      columns := (
        balance_transaction_id,
        category,
        currency,
        amount,
        fee,
        net,
        created_at,
        created_date,
        report_date
      )
    ),
    unique_values(columns := balance_transaction_id),
    not_in_the_future(day := created_date),
    balance_matches_staging
  )
);

WITH balance_transactions AS (
  SELECT
    *
  FROM staging.stg_stripe__balance_transactions
  WHERE
    is_live
)
SELECT
  balance_transaction_id::TEXT AS balance_transaction_id,
  source_id::TEXT AS source_id,
  type::TEXT AS type,
  reporting_category::TEXT AS reporting_category,
  CASE
    WHEN reporting_category = 'charge'
    THEN 'charges'
    WHEN reporting_category = 'charge_failure'
    THEN 'charge_failures'
    WHEN reporting_category IN ('refund', 'refund_failure', 'partial_capture_reversal')
    THEN 'refunds'
    WHEN reporting_category IN ('dispute', 'dispute_reversal')
    THEN 'disputes'
    WHEN reporting_category IN ('fee', 'network_cost', 'tax')
    THEN 'fees'
    WHEN reporting_category = 'other_adjustment'
    THEN 'adjustments'
    WHEN reporting_category = 'payout'
    THEN 'payouts'
    WHEN reporting_category = 'payout_reversal'
    THEN 'payouts_returned'
    WHEN reporting_category IN (
      'transfer',
      'transfer_reversal',
      'connect_collection_transfer',
      'platform_earning',
      'platform_earning_refund'
    )
    THEN 'transfers'
    WHEN reporting_category IN ('topup', 'topup_reversal')
    THEN 'top_ups'
    WHEN reporting_category IN (
      'connect_reserved_funds',
      'risk_reserved_funds',
      'payment_network_reserve_hold',
      'payment_network_reserve_release'
    )
    THEN 'reserves'
    WHEN reporting_category IN (
      'advance',
      'advance_funding',
      'anticipation_repayment',
      'financing_paydown',
      'financing_paydown_reversal',
      'financing_payout',
      'financing_payout_reversal'
    )
    THEN 'financing'
    WHEN reporting_category IN (
      'issuing_authorization_hold',
      'issuing_authorization_release',
      'issuing_disbursement',
      'issuing_dispute',
      'issuing_transaction'
    )
    THEN 'issuing'
    ELSE 'other'
  END::TEXT AS category,
  currency::TEXT AS currency,
  amount::DECIMAL(38, 3) AS amount,
  fee::DECIMAL(38, 3) AS fee,
  net::DECIMAL(38, 3) AS net,
  created_at::TIMESTAMP AS created_at,
  created_at::DATE AS created_date,
  @report_date(created_at)::DATE AS report_date,
  available_at::TIMESTAMP AS available_at,
  loaded_at::TIMESTAMP AS loaded_at,
  is_deleted::BOOLEAN AS is_deleted
FROM balance_transactions
WHERE
  @loaded_since_last_build(loaded_at);

@IF(@runtime_stage = 'evaluating', DELETE FROM @this_model
WHERE
  is_deleted)
