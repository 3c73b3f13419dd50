"""Tasks that a model was not trained for, answered in one of three ways."""
