"""Takes in what customers send on any channel, durably, before it says so; then makes of each delivery
a message with its sender and its conversation, once, and says of every input what became of it.
"""
