MODEL (
  name marts.balance_reconciliation,
  kind FULL,
  owner data,
  grain (currency, date),
  depends_on (
    marts.payment_facts,
    marts.refund_facts,
    marts.dispute_facts,
    staging.stg_stripe__balance_transactions
  ),
  description 'Whether the money adds up: per currency of the balance and UTC day, every movement of Stripe''s balance in exactly one category, their sum against the balance itself, and payouts against the payouts that Stripe states. Both differences must be 0, or the build stops. Days are UTC, as in Stripe''s own balance reports, whatever the report''s time zone.',
  column_descriptions (
    currency = 'ISO 4217 code in which the account is paid; never add rows of different currencies.',
    date = 'UTC day on which the balance moved.',
    movements = 'Balance transactions of the day.',
    charges = 'Money taken from customers.',
    charge_failures = 'Money taken back because a payment failed after it had counted, as bank debits do.',
    refunds = 'Money given back, less what came back because a refund failed; negative.',
    disputes = 'What banks took for disputes, less what they gave back; negative while money is gone.',
    adjustments = 'Corrections by Stripe and what it names an adjustment.',
    transfers = 'Between this account and connected ones, and what the platform earned by them.',
    top_ups = 'Money put into the balance by the company.',
    reserves = 'Held back by Stripe, and released.',
    financing = 'Loans of Stripe, and their repayment.',
    issuing = 'What was spent with cards that the company issues.',
    payouts = 'Paid out to the bank; negative.',
    payouts_returned = 'Payouts that failed or were canceled and came back.',
    other = 'Movements of a reporting_category that marts.balance_transaction_facts does not know.',
    fees = 'What Stripe took, for a movement or by a movement of its own; negative, positive where it gave fees back.',
    balance_change = 'Sum of the balance transactions after fees: by how much the balance changed.',
    difference = 'All categories and fees less balance_change; must be 0.',
    payouts_stated = 'What payouts and returned payouts should have moved, by the payouts themselves; negative for money that left.',
    payouts_in_transit = 'Movements of payouts, less payouts stated, of which the other half is younger than a day and not loaded yet.',
    payouts_difference = 'payouts and payouts_returned less payouts_stated and payouts_in_transit; must be 0.',
    other_movements = 'Balance transactions in `other`: declare their reporting_category in marts.balance_transaction_facts.',
    movements_without_object = 'Balance transactions of charges, refunds and disputes whose object is not loaded, yet or at all.',
    amount_without_object = 'Sum of these, before fees.',
    balance = 'The balance at the end of the day: running sum of balance_change.',
    running_difference = 'Running sum of difference; must be 0.',
    running_payouts_difference = 'Running sum of payouts_difference; must be 0.'
  ),
  audits (
    not_null(
      columns := (
        currency,
        date,
        difference,
        payouts_difference,
        running_difference,
        running_payouts_difference
      )
    ),
    unique_combination_of_columns(columns := (currency, date)),
    balance_reconciles,
    balance_matches_facts
  )
);

WITH movements AS (
  SELECT
    *
  FROM marts.balance_transaction_facts
), all_payouts AS (
  SELECT
    *
  FROM staging.stg_stripe__payouts
  WHERE
    is_live AND NOT is_deleted
), all_charges AS (
  SELECT
    *
  FROM staging.stg_stripe__charges
  WHERE
    is_live AND NOT is_deleted
), all_refunds AS (
  SELECT
    *
  FROM staging.stg_stripe__refunds
  WHERE
    is_live AND NOT is_deleted
), all_disputes AS (
  SELECT
    *
  FROM staging.stg_stripe__disputes
  WHERE
    is_live AND NOT is_deleted
), newest AS (
  SELECT
    MAX(loaded_at) - INTERVAL '1' DAY AS a_day_ago
  FROM movements
), with_object AS (
  SELECT
    balance_transaction_id
  FROM all_charges
  UNION
  SELECT
    balance_transaction_id
  FROM all_refunds
  UNION
  SELECT
    movements.balance_transaction_id
  FROM movements
  JOIN all_refunds
    ON all_refunds.refund_id = movements.source_id
  UNION
  SELECT
    movements.balance_transaction_id
  FROM movements
  JOIN all_disputes
    ON all_disputes.dispute_id = movements.source_id
), judged AS (
  SELECT
    movements.currency,
    movements.created_date,
    movements.category,
    movements.amount,
    movements.fee,
    movements.net,
    movements.category IN ('charges', 'refunds', 'disputes')
    AND with_object.balance_transaction_id IS NULL AS is_without_object
  FROM movements
  LEFT JOIN with_object
    ON with_object.balance_transaction_id = movements.balance_transaction_id
), ledger AS (
  SELECT
    currency,
    created_date AS date,
    COUNT(*) AS movements,
    COALESCE(SUM(amount) FILTER(WHERE
      category = 'charges'), 0) AS charges,
    COALESCE(SUM(amount) FILTER(WHERE
      category = 'charge_failures'), 0) AS charge_failures,
    COALESCE(SUM(amount) FILTER(WHERE
      category = 'refunds'), 0) AS refunds,
    COALESCE(SUM(amount) FILTER(WHERE
      category = 'disputes'), 0) AS disputes,
    COALESCE(SUM(amount) FILTER(WHERE
      category = 'adjustments'), 0) AS adjustments,
    COALESCE(SUM(amount) FILTER(WHERE
      category = 'transfers'), 0) AS transfers,
    COALESCE(SUM(amount) FILTER(WHERE
      category = 'top_ups'), 0) AS top_ups,
    COALESCE(SUM(amount) FILTER(WHERE
      category = 'reserves'), 0) AS reserves,
    COALESCE(SUM(amount) FILTER(WHERE
      category = 'financing'), 0) AS financing,
    COALESCE(SUM(amount) FILTER(WHERE
      category = 'issuing'), 0) AS issuing,
    COALESCE(SUM(amount) FILTER(WHERE
      category = 'payouts'), 0) AS payouts,
    COALESCE(SUM(amount) FILTER(WHERE
      category = 'payouts_returned'), 0) AS payouts_returned,
    COALESCE(SUM(amount) FILTER(WHERE
      category = 'other'), 0) AS other,
    COALESCE(SUM(amount) FILTER(WHERE
      category = 'fees'), 0) - SUM(fee) AS fees,
    SUM(net) AS balance_change,
    COUNT(*) FILTER(WHERE
      category = 'other') AS other_movements,
    COUNT(*) FILTER(WHERE
      is_without_object) AS movements_without_object,
    COALESCE(SUM(amount) FILTER(WHERE
      is_without_object), 0) AS amount_without_object
  FROM judged
  GROUP BY
    currency,
    created_date
), paid AS (
  SELECT
    balance_transaction_id,
    currency,
    created_at,
    amount
  FROM movements
  WHERE
    category = 'payouts'
), stated AS (
  SELECT
    balance_transaction_id,
    currency,
    created_at,
    -amount AS amount
  FROM all_payouts
  WHERE
    NOT balance_transaction_id IS NULL
), returned AS (
  SELECT
    source_id AS payout_id,
    currency,
    MIN(created_at) AS created_at,
    SUM(amount) AS amount
  FROM movements
  WHERE
    category = 'payouts_returned'
  GROUP BY
    source_id,
    currency
), given_up AS (
  SELECT
    payout_id,
    currency,
    loaded_at,
    amount
  FROM all_payouts
  WHERE
    status IN ('failed', 'canceled') AND NOT balance_transaction_id IS NULL
), pairs AS (
  SELECT
    COALESCE(paid.currency, stated.currency) AS currency,
    COALESCE(paid.created_at, stated.created_at) AS moved_at,
    COALESCE(paid.created_at, stated.created_at) AS known_at,
    paid.amount AS moved,
    stated.amount AS stated
  FROM paid
  FULL OUTER JOIN stated
    ON stated.balance_transaction_id = paid.balance_transaction_id
    AND stated.currency = paid.currency
  UNION ALL
  SELECT
    COALESCE(returned.currency, given_up.currency),
    COALESCE(returned.created_at, given_up.loaded_at),
    COALESCE(returned.created_at, given_up.loaded_at),
    returned.amount,
    given_up.amount
  FROM returned
  FULL OUTER JOIN given_up
    ON given_up.payout_id = returned.payout_id AND given_up.currency = returned.currency
), payouts AS (
  SELECT
    pairs.currency,
    pairs.moved_at::DATE AS date,
    COALESCE(SUM(pairs.stated), 0) AS payouts_stated,
    COALESCE(
      SUM(COALESCE(pairs.moved, 0) - COALESCE(pairs.stated, 0)) FILTER(WHERE
        (
          pairs.moved IS NULL OR pairs.stated IS NULL
        )
        AND (
          newest.a_day_ago IS NULL OR pairs.known_at > newest.a_day_ago
        )),
      0
    ) AS payouts_in_transit
  FROM pairs
  CROSS JOIN newest
  GROUP BY
    pairs.currency,
    pairs.moved_at::DATE
), days AS (
  SELECT
    COALESCE(ledger.currency, payouts.currency) AS currency,
    COALESCE(ledger.date, payouts.date) AS date,
    COALESCE(ledger.movements, 0) AS movements,
    COALESCE(ledger.charges, 0) AS charges,
    COALESCE(ledger.charge_failures, 0) AS charge_failures,
    COALESCE(ledger.refunds, 0) AS refunds,
    COALESCE(ledger.disputes, 0) AS disputes,
    COALESCE(ledger.adjustments, 0) AS adjustments,
    COALESCE(ledger.transfers, 0) AS transfers,
    COALESCE(ledger.top_ups, 0) AS top_ups,
    COALESCE(ledger.reserves, 0) AS reserves,
    COALESCE(ledger.financing, 0) AS financing,
    COALESCE(ledger.issuing, 0) AS issuing,
    COALESCE(ledger.payouts, 0) AS payouts,
    COALESCE(ledger.payouts_returned, 0) AS payouts_returned,
    COALESCE(ledger.other, 0) AS other,
    COALESCE(ledger.fees, 0) AS fees,
    COALESCE(ledger.balance_change, 0) AS balance_change,
    COALESCE(
      ledger.charges + ledger.charge_failures + ledger.refunds + ledger.disputes + ledger.adjustments + ledger.transfers + ledger.top_ups + ledger.reserves + ledger.financing + ledger.issuing + ledger.payouts + ledger.payouts_returned + ledger.other + ledger.fees - ledger.balance_change,
      0
    ) AS difference,
    COALESCE(payouts.payouts_stated, 0) AS payouts_stated,
    COALESCE(payouts.payouts_in_transit, 0) AS payouts_in_transit,
    COALESCE(ledger.payouts + ledger.payouts_returned, 0) - COALESCE(payouts.payouts_stated, 0) - COALESCE(payouts.payouts_in_transit, 0) AS payouts_difference,
    COALESCE(ledger.other_movements, 0) AS other_movements,
    COALESCE(ledger.movements_without_object, 0) AS movements_without_object,
    COALESCE(ledger.amount_without_object, 0) AS amount_without_object
  FROM ledger
  FULL OUTER JOIN payouts
    ON payouts.currency = ledger.currency AND payouts.date = ledger.date
)
SELECT
  currency::TEXT AS currency,
  date::DATE AS date,
  movements::BIGINT AS movements,
  charges::DECIMAL(38, 3) AS charges,
  charge_failures::DECIMAL(38, 3) AS charge_failures,
  refunds::DECIMAL(38, 3) AS refunds,
  disputes::DECIMAL(38, 3) AS disputes,
  adjustments::DECIMAL(38, 3) AS adjustments,
  transfers::DECIMAL(38, 3) AS transfers,
  top_ups::DECIMAL(38, 3) AS top_ups,
  reserves::DECIMAL(38, 3) AS reserves,
  financing::DECIMAL(38, 3) AS financing,
  issuing::DECIMAL(38, 3) AS issuing,
  payouts::DECIMAL(38, 3) AS payouts,
  payouts_returned::DECIMAL(38, 3) AS payouts_returned,
  other::DECIMAL(38, 3) AS other,
  fees::DECIMAL(38, 3) AS fees,
  balance_change::DECIMAL(38, 3) AS balance_change,
  difference::DECIMAL(38, 3) AS difference,
  payouts_stated::DECIMAL(38, 3) AS payouts_stated,
  payouts_in_transit::DECIMAL(38, 3) AS payouts_in_transit,
  payouts_difference::DECIMAL(38, 3) AS payouts_difference,
  other_movements::BIGINT AS other_movements,
  movements_without_object::BIGINT AS movements_without_object,
  amount_without_object::DECIMAL(38, 3) AS amount_without_object,
  SUM(balance_change) OVER (PARTITION BY currency ORDER BY date)::DECIMAL(38, 3) AS balance,
  SUM(difference) OVER (PARTITION BY currency ORDER BY date)::DECIMAL(38, 3) AS running_difference,
  SUM(payouts_difference) OVER (PARTITION BY currency ORDER BY date)::DECIMAL(38, 3) AS running_payouts_difference
FROM days
