"""Forecasts of daily trading volume: what Python code uses of them."""
