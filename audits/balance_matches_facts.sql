AUDIT (
  name balance_matches_facts
);

/* What charges, refunds and disputes did to the balance is the same by the balance and by the facts of each, per currency. */
WITH facts AS (
  SELECT
    settlement_currency AS currency,
    SUM(settled_amount) AS amount
  FROM (
    SELECT
      settlement_currency,
      settled_amount
    FROM marts.payment_facts
    UNION ALL
    SELECT
      settlement_currency,
      settled_amount
    FROM marts.refund_facts
    UNION ALL
    SELECT
      settlement_currency,
      settled_reinstated - settled_withdrawn
    FROM marts.dispute_facts
  ) AS settled
  WHERE
    NOT settlement_currency IS NULL
  GROUP BY
    settlement_currency
), balance AS (
  SELECT
    currency,
    SUM(charges + refunds + disputes - amount_without_object) AS amount
  FROM @this_model
  GROUP BY
    currency
)
SELECT
  *
FROM facts
FULL OUTER JOIN balance
  ON balance.currency = facts.currency
WHERE
  COALESCE(facts.amount, 0) <> COALESCE(balance.amount, 0)
