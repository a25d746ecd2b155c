"""What all back ends share: settings, examples, tokenizers, saves, checkpoints. Imports data_prep and core."""
