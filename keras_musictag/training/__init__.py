"""Training: the loop, training from labels or from a teacher, and fine-tuning."""
