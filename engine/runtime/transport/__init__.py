"""Transports: the broker connection of a worker, in memory or to Kafka, behind one protocol."""
