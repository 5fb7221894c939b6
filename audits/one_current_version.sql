AUDIT (
  name one_current_version
);

/* Exactly one version of each key is valid now, or none when it was deleted; versions never overlap. */
SELECT
  @key
FROM @this_model
GROUP BY
  @key
HAVING
  COUNT(*) FILTER(WHERE
    valid_to IS NULL) > 1
  OR COUNT(*) FILTER(WHERE
    valid_to <= valid_from) > 0
