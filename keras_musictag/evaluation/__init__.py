"""Evaluation: metrics with confidence intervals, results, and measuring a tagger on a manifest."""
