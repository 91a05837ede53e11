"""Vectors of texts: learnt from a model, from scores of pairs, or from queries and passages."""
