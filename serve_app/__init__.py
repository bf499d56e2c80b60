"""The service's door. Empty so far: jobs run by `python -m train` or `ray job submit`."""
