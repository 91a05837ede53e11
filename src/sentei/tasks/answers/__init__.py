"""Question answering: files, windows over long contexts, scores."""
