-- Script: add a problem to those of an account. An older one with the same text is removed.
--
-- KEYS: 1 the account's problems
-- ARGV: 1 problem (JSON), 2 maximum number of problems to keep
-- Returns nothing.

local problems = require('ari_conf.queues.scripts.problems')

local list = KEYS[1]
local problem, max_problems = ARGV[1], tonumber(ARGV[2])

problems.add_once(list, problem, max_problems)
