"""Tells customers what happens with their case: owns every notice, whether it was sent, and why one was not.

It reads the life of tickets, renders each notice in the customer's language and hands it to a provider exactly once.
"""
