"""An OpenAPI 3.1 document made from the contracts: their HTTP rules, constraints, permissions and comments."""
