"""A finished model as others take it: a Hugging Face directory in shards with a card, and beside it a GGUF file."""
