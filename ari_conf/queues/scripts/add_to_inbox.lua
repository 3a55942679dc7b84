-- Script: add an entry to the history's inbox of an account.
--
-- KEYS: 1 the inbox
-- ARGV: 1 account, 2 the entry (JSON)
-- Returns nothing.

local history = require('ari_conf.queues.scripts.history')

local account, entry = ARGV[1], ARGV[2]

history.add(account, entry)
