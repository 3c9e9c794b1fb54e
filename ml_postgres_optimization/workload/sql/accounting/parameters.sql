SELECT cardinality(parameter_types) FROM pg_prepared_statements WHERE name = 'genesis_plan'
