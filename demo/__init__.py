"""Phones and audio analysis of the demo and of the tests.

phone            one caller: a SIP and RTP phone on loopback; and the Switchboard that creates and ends phones
sip              SIP as text: reading and writing messages, SDP
dialog           one SIP call, from the caller's side
rtp              the one thread that sends and receives the audio of all phones
received_audio   the audio that a phone received, each packet at its place in time
g711             mu-law
codec            mu-law or G.722
audio_analysis   content of a piece of audio: tones, silence, beeps, a known recording
speech/          recorded speech for the callers
"""
