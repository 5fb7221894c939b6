AUDIT (
  name reference_exists
);

SELECT
  child.*
FROM @this_model AS child
LEFT JOIN @parent AS parent
  ON child.@column = parent.@parent_column
WHERE
  parent.@parent_column IS NULL AND NOT child.@column IS NULL
