"""The seam to Faust: everything that touches it lives in this package and in `engine.runtime.app`.

What is overridden of Faust and mode, public or not, is listed in tests/engine/runtime/test_faust_seam.py: each with a test that
fails when a new version of the library changes it.

    deliveries       a pipeline as a genuine agent that takes record batches from a channel
    side_*           a Faust transport over ours (connection, producer, consumer): plain agents, and app.topic(...).send
    structs          Structs as value types of plain topics
    boot             what starts with the app, in which order; the service that holds the runner
    web              GET /metrics
    commands         `faust reset` and `faust tables` for our state
"""
