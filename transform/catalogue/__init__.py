"""The catalogue: what each table and column of the warehouse means, made from the models that build it."""
