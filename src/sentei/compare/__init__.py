"""Comparisons: recipes x sparsities x seeds x tasks, by any number of workers.

plan.py      what is compared: a declaration      choices.py     what a search may choose
runs.py      the runs that a plan asks for        folder.py      what its workers share
worker.py    takes a run, makes it, goes on       execute.py     one run, here or launched
search.py    values tried, the best of them       ranges.py      values drawn by Optuna
states.py    where every run stands               cluster.py    hands runs out to a cluster
collect.py   from folders to results              remote.py     what a machine of it does
summaries.py means, differences, the front
"""
