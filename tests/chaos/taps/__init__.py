"""An experiment: what carries a channel's sound to us, such that Asterisk lives whatever becomes of us?

    python -m tests.chaos.taps --help

Receivers of a sound are killed and stopped at random moments, beside a conference that is listened to.
"""
