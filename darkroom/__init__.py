"""Retrain diffusion models on a schedule; a new one replaces the old one only when it is measurably better."""

__version__ = "0.1.0"
