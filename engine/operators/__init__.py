"""Operators: the nodes of a task's graph at run time, one module a kind. See `engine.operators.base`."""
