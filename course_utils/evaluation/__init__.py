"""Measuring trained models: metrics, and later sandbox and problems."""
