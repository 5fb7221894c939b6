AUDIT (
  name predictions_match_lifetime_value
);

/* Every customer who bought is there, once per currency; what is predicted is possible, and what is not says why. */
SELECT
  lifetime.user_id
FROM marts.customer_lifetime_value AS lifetime
FULL OUTER JOIN @this_model AS predicted
  ON predicted.user_id = lifetime.user_id AND predicted.currency = lifetime.currency
WHERE
  predicted.user_id IS NULL
  OR lifetime.user_id IS NULL
  OR NOT COALESCE(predicted.probability_alive, 0) BETWEEN 0 AND 1
  OR COALESCE(predicted.predicted_purchases, 0) < 0
  OR COALESCE(predicted.predicted_revenue, 0) < 0
  OR (
    predicted.predicted_revenue IS NULL
  ) <> (
    NOT predicted.unpredicted_reason IS NULL
  )
