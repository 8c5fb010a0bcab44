"""Mutants: each rule of correctness broken on purpose in a copy of the code, to see that the simulator or a test notices.

    python -m tests.mutants                 all of them
    python -m tests.mutants --rule 7        those of one rule
    python -m tests.mutants --only NAME     one

A mutant is a piece of text replaced in one file (`catalog`), and what must notice it: seeds of the simulator, tests, or both. First the
unchanged copy must pass all of that. A mutant that nothing notices survives, and the command fails: a test is missing. So does one
whose text is no longer in its file.
"""
