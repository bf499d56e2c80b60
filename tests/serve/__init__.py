"""Tests of the service. A package, since it has a conftest of its own."""
