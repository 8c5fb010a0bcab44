"""The chain on real services: PostgreSQL, Debezium in Kafka Connect, Kafka, and a schema registry, without containers."""
