"""Conformance: what Apache Flink's own tests expect, replayed through our operators. See README.md."""
