"""Tests of the containers: what is written, by pytest; what it does, by `make containers-test`."""
