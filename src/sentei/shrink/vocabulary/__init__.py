"""Tokens that no text uses, taken out of tokenizer, embeddings and head."""
