"""Small programs as users write them, each run by a test; they must pass mypy --strict as they stand."""
