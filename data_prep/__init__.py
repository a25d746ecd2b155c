"""Text to training data: corpus, instructions and preferences, in splits that share no message.

Standard library and polib only: these stages run in the core environment.
"""
