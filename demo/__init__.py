"""The callers and ears of the demo and of the tests.

phone      one caller: a SIP and RTP phone on loopback, and the Switchboard that makes and ends them
sip        SIP's text: read and write messages, SDP
dialog     one SIP call, as the one who calls
rtp        the one thread that sends and receives the sound of all phones
heard      what a phone heard, each packet at its place in time
g711       mu-law
codec      mu-law or G.722
listen     what is in a piece of sound: tones, silence, beeps, a known recording
speech/    recorded people, to speak for the callers
"""
