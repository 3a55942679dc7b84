"""Experiment: transports that bring a channel's audio to a process without endangering Asterisk if that process dies.

    python -m tests.chaos.taps --help

Audio receivers are killed and stopped at random moments, beside a conference whose audio is judged.
"""
