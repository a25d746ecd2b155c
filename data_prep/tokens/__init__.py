"""Text to token ids, and ids to the .bin/.idx files of Megatron. Needs the extra ``data``."""
