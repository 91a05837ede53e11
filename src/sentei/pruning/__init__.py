"""One training being pruned: observe, decide, apply at the hooks of its optimizer."""
