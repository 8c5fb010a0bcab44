"""The command line `streamforge`: a root group, one module a command.

    run       pipelines over files, in this process, without any broker
    worker    pipelines on Kafka
    send, tail, topics, pipelines
    dlq       dead letters: list, show, replay, purge

Other packages add commands by the entry-point group `streamforge.commands` (name = module:click_command). Commands are imported
when they are called. What a person can mend ends in one sentence on standard error and a non-zero exit status, never in a
traceback: fix a declaration or setting (`ConfigError`), wait or check the broker (`UnavailableError`), a file that is not there.
"""

from engine.runtime.cli.root import main

__all__ = ["main"]
