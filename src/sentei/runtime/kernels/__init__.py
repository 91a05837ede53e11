"""The engine's operations, one a file: layout, cost, and the share of its bound that was seen."""
