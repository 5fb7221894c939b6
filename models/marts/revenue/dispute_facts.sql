MODEL (
  name marts.dispute_facts,
  kind INCREMENTAL_BY_UNIQUE_KEY (
    unique_key dispute_id
  ),
  owner data,
  grain dispute_id,
  description 'Every dispute, one row each (a charge can have several), with what the bank took, what it gave back, and the fees. Built from what was loaded since the last build of any of its three inputs, each by its own time. Only the live mode; a deleted dispute leaves, in the statement at the end.',
  column_descriptions (
    dispute_id = 'Stripe''s id of the dispute.',
    charge_id = 'Charge that is disputed; see marts.payment_facts.',
    customer_id = 'Customer of that charge; null for a guest, or until the charge is loaded.',
    payment_intent_id = 'Payment intent of that charge.',
    created_at = 'When the dispute began, UTC.',
    report_date = 'Day on which the dispute began, in the report''s time zone.',
    status = 'warning_needs_response, warning_under_review, warning_closed, needs_response, under_review, won or lost.',
    reason = 'What the customer told the bank, for example fraudulent or duplicate.',
    currency = 'ISO 4217 code of the amount, upper case.',
    amount = 'What is disputed; not all of it need have been taken.',
    settlement_currency = 'ISO 4217 code in which the account is paid; fees and settled amounts are in this one. Null until the balance moved: an inquiry takes nothing.',
    settled_withdrawn = 'What the bank took from the balance, positive.',
    settled_reinstated = 'What the bank gave back, positive: the whole after a dispute that was won.',
    fee = 'What Stripe took for the dispute, before anything was given back.',
    fee_reversed = 'What Stripe gave back of the fee, positive.',
    settled_net = 'What the dispute did to the balance after fees; negative while money is gone.',
    withdrawn_at = 'When the bank first took the money, UTC.',
    reinstated_at = 'When the bank last gave it back, UTC.',
    loaded_at = 'When this version of the dispute was loaded, UTC.',
    charge_loaded_at = 'When its charge was loaded, UTC.',
    balance_loaded_at = 'When the newest of its balance transactions was loaded, UTC.',
    is_deleted = 'Whether it was deleted in Stripe. Always false here.'
  ),
  audits (
    not_null(
      columns := (
        dispute_id,
        created_at,
        report_date,
        currency,
        amount,
        settled_withdrawn,
        settled_reinstated,
        fee,
        fee_reversed,
        settled_net
      )
    ),
    unique_values(columns := dispute_id),
    amount_is_valid(amount := amount),
    not_after_the_report_day(day := report_date),
    objects_of_charges_match_staging(staged := staging.stg_stripe__disputes)
  )
);

WITH all_disputes AS (
  SELECT
    *
  FROM staging.stg_stripe__disputes
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
    category = 'disputes'
), settled AS (
  SELECT
    source_id AS dispute_id,
    currency,
    -SUM(amount) FILTER(WHERE
      reporting_category = 'dispute') AS withdrawn,
    SUM(amount) FILTER(WHERE
      reporting_category = 'dispute_reversal') AS reinstated,
    SUM(fee) FILTER(WHERE
      fee > 0) AS fee,
    -SUM(fee) FILTER(WHERE
      fee < 0) AS fee_reversed,
    SUM(net) AS net,
    MIN(created_at) FILTER(WHERE
      reporting_category = 'dispute') AS withdrawn_at,
    MAX(created_at) FILTER(WHERE
      reporting_category = 'dispute_reversal') AS reinstated_at,
    MAX(loaded_at) AS loaded_at
  FROM movements
  GROUP BY
    source_id,
    currency
), disputes AS (
  SELECT
    all_disputes.dispute_id,
    all_disputes.charge_id,
    charges.customer_id,
    all_disputes.payment_intent_id,
    all_disputes.created_at,
    all_disputes.status,
    all_disputes.reason,
    all_disputes.currency,
    all_disputes.amount,
    settled.currency AS settlement_currency,
    COALESCE(settled.withdrawn, 0) AS settled_withdrawn,
    COALESCE(settled.reinstated, 0) AS settled_reinstated,
    COALESCE(settled.fee, 0) AS fee,
    COALESCE(settled.fee_reversed, 0) AS fee_reversed,
    COALESCE(settled.net, 0) AS settled_net,
    settled.withdrawn_at,
    settled.reinstated_at,
    all_disputes.loaded_at,
    charges.loaded_at AS charge_loaded_at,
    settled.loaded_at AS balance_loaded_at,
    all_disputes.is_deleted
  FROM all_disputes
  LEFT JOIN charges
    ON charges.charge_id = all_disputes.charge_id
  LEFT JOIN settled
    ON settled.dispute_id = all_disputes.dispute_id
)
SELECT
  dispute_id::TEXT AS dispute_id,
  charge_id::TEXT AS charge_id,
  customer_id::TEXT AS customer_id,
  payment_intent_id::TEXT AS payment_intent_id,
  created_at::TIMESTAMP AS created_at,
  @report_date(created_at)::DATE AS report_date,
  status::TEXT AS status,
  reason::TEXT AS reason,
  currency::TEXT AS currency,
  amount::DECIMAL(38, 3) AS amount,
  settlement_currency::TEXT AS settlement_currency,
  settled_withdrawn::DECIMAL(38, 3) AS settled_withdrawn,
  settled_reinstated::DECIMAL(38, 3) AS settled_reinstated,
  fee::DECIMAL(38, 3) AS fee,
  fee_reversed::DECIMAL(38, 3) AS fee_reversed,
  settled_net::DECIMAL(38, 3) AS settled_net,
  withdrawn_at::TIMESTAMP AS withdrawn_at,
  reinstated_at::TIMESTAMP AS reinstated_at,
  loaded_at::TIMESTAMP AS loaded_at,
  charge_loaded_at::TIMESTAMP AS charge_loaded_at,
  balance_loaded_at::TIMESTAMP AS balance_loaded_at,
  is_deleted::BOOLEAN AS is_deleted
FROM disputes
WHERE
  @loaded_since_last_build(loaded_at)
  OR @loaded_since_last_build(charge_loaded_at)
  OR @loaded_since_last_build(balance_loaded_at);

@IF(@runtime_stage = 'evaluating', DELETE FROM @this_model
WHERE
  is_deleted)
