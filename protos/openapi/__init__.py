"""An OpenAPI 3.1 document from the contracts: their HTTP rules, constraints and comments."""
