"""What all steps share: text, splits, units, errors."""
