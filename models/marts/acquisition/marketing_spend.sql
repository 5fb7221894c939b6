MODEL (
  name marts.marketing_spend,
  kind SEED (
    path 'marketing_spend.csv'
  ),
  owner data,
  ignored_rules ['nomissingunittest'],
  grain (date, source, medium, campaign, currency),
  columns (
    date DATE,
    source TEXT,
    medium TEXT,
    campaign TEXT,
    currency TEXT,
    spend DECIMAL(18, 2)
  ),
  description 'What was spent to win customers, as declared (marketing_spend.csv beside this model): one row a day, source, medium, campaign and currency.',
  column_descriptions (
    date = 'Day on which the money was spent; a month may be declared on its first day.',
    source = 'Source of the visits that it paid for, spelled as Google Analytics spells it, for example google.',
    medium = 'Medium of these visits, for example cpc.',
    campaign = 'Campaign, spelled likewise; (not set) for what belongs to none.',
    currency = 'ISO 4217 code of the spend, upper case.',
    spend = 'What was spent; 0 says that it was nothing, no row says that it is not known.'
  ),
  audits (
    not_null(columns := (date, source, medium, campaign, currency, spend)),
    unique_combination_of_columns(columns := (date, source, medium, campaign, currency)),
    forall(criteria := (spend >= 0, currency = UPPER(currency)))
  )
)
