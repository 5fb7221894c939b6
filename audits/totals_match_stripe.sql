AUDIT (
  name totals_match_stripe
);

/* What the days say of Stripe is what staging says, per currency, to the cent: fees and net by the balance, payments and refunds by their objects. */
WITH here AS (
  SELECT
    currency,
    SUM(payments) AS payments,
    SUM(refunds) AS refunds,
    SUM(fees) AS fees,
    SUM(net) AS net
  FROM @this_model
  GROUP BY
    currency
), stated AS (
  SELECT
    currency,
    SUM(payments) AS payments,
    SUM(refunds) AS refunds,
    SUM(fees) AS fees,
    SUM(net) AS net
  FROM (
    SELECT
      currency,
      amount_captured AS payments,
      0 AS refunds,
      0 AS fees,
      0 AS net
    FROM staging.stg_stripe__charges
    WHERE
      is_live AND NOT is_deleted AND status = 'succeeded'
    UNION ALL
    SELECT
      currency,
      0,
      amount,
      0,
      0
    FROM staging.stg_stripe__refunds
    WHERE
      is_live
      AND NOT is_deleted
      AND NOT balance_transaction_id IS NULL
      AND NOT status IN ('failed', 'canceled')
    UNION ALL
    SELECT
      currency,
      0,
      0,
      fee - CASE
        WHEN reporting_category IN ('fee', 'network_cost', 'tax')
        THEN amount
        ELSE 0
      END,
      CASE
        WHEN reporting_category IN (
          'charge',
          'charge_failure',
          'refund',
          'refund_failure',
          'partial_capture_reversal',
          'dispute',
          'dispute_reversal',
          'other_adjustment',
          'fee',
          'network_cost',
          'tax'
        )
        THEN amount
        ELSE 0
      END - fee
    FROM staging.stg_stripe__balance_transactions
    WHERE
      is_live AND NOT is_deleted
  ) AS stripe
  GROUP BY
    currency
)
SELECT
  *
FROM here
FULL OUTER JOIN stated
  ON here.currency = stated.currency
WHERE
  COALESCE(here.payments, 0) <> COALESCE(stated.payments, 0)
  OR COALESCE(here.refunds, 0) <> COALESCE(stated.refunds, 0)
  OR COALESCE(here.fees, 0) <> COALESCE(stated.fees, 0)
  OR COALESCE(here.net, 0) <> COALESCE(stated.net, 0)
