"""What safety tasks know of languages: how a refusal begins, and prompts that only look harmful."""
