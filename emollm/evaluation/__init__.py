"""How good a model is: metrics, and the report of them."""
