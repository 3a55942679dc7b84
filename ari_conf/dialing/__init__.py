"""Dialing policy: over which trunks a call is placed, and whether the account may place it.

`numbers`, `trunks`, `routing` and `permissions` are pure. `admission` asks them and Redis, and `ledger` writes what the
server knows of placed calls, so that limits hold over all web processes and restarts. The core does not know this
package: it gets the attempts of an admitted call.
"""
