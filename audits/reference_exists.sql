AUDIT (
  name reference_exists
);

SELECT
  child.*
FROM @this_model AS child
LEFT JOIN @parent AS parent
  ON child.@key = parent.@parent_key
WHERE
  parent.@parent_key IS NULL AND NOT child.@key IS NULL
