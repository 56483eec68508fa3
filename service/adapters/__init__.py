"""Implementations of the ports: SQL, memory, Ray jobs, Optuna and MLflow, one file each."""
