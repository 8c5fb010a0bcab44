"""Schema registries: a client of the Confluent API (`client`), and an embedded registry that serves it (`store`, `rules`, `server`)."""
