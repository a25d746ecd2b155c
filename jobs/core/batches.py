"""How much goes through a model of an evaluation at once where its stage does not say; a plan counts with it, too."""

BATCH_TOKENS = 2048
"""Tokens of a batch whose likelihood is taken."""

BATCH_PROMPTS = 64
"""Prompts of a batch that is answered."""

LOGIT_ROWS = 512
"""Positions whose logits are held at once: with a vocabulary of 49,152 in fp32 that is 100 MB."""
