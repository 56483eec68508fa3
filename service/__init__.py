"""The sweep service: the only place that has heard of Ray jobs, Optuna, MLflow, SQL and HTTP."""
