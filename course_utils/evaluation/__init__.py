"""Measuring trained models: metrics, language quality, programming problems and the sandbox that runs them."""
