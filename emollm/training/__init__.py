"""Fine-tuning: a plain loop without Ray, and Ray Train around it."""
