AUDIT (
  name rate_is_positive
);

SELECT
  *
FROM @this_model
WHERE
  rate <= 0
  OR currency <> UPPER(currency)
  OR reporting_currency <> UPPER(reporting_currency)
  OR currency = reporting_currency
