"""Sentei under kills, full disks, signals, harmed files, company and bad input.

    python -m tests.soak                  everything; the table goes to benchmarks/results
    python -m tests.soak --only 'pairs*'  one group, or one trial by its whole name

A trial ends as it should, or in a named fault; each failing one prints the command that repeats it.
"""
