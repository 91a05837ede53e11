"""Comparisons: recipes x sparsities x seeds x tasks, by any number of workers.

plan.py        what is compared: a declaration            cells.py   the runs it asks for
begin.py       the folder they share                      claims.py  who runs what, through Optuna
work.py        a worker: claim, run, go on                run.py     one run, here or launched
search.py      values tried, and the best of them         choices.py what may be tried
collect.py     from folders to results                    statistics.py
"""
