"""Tests of docs/operations/deployment.md: what it says, by pytest; what its commands do, by `make deployment-test`."""
