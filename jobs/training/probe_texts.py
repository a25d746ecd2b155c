"""Texts by which the loaders of two environments are compared."""

PROBE_TEXTS = (
    "The capital of France is Paris",
    "def main():\n    return 12345",
    "Não há atualizações disponíveis — ação concluída.",
    "  leading and   inner spaces\t tab",
    "日本語と한국어 emoji 🌙",
)
"""Fixed texts whose ids make up the behaviour of a tokenizer: words, digits, accents, white space, other scripts."""
