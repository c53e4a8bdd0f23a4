"""Training: the loop, what it learns from (labels or a teacher), and fine-tuning."""
