"""Implementations of the ports by SQL, memory, Ray jobs, Optuna and MLflow, in files that begin with these names."""
