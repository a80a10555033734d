"""Opening hours: calendars and the arithmetic of open time, for whichever service needs to know whether it is open.

Pure, and above nothing but the standard library and pydantic: the clocks of `sla`, the rules and shifts of `router`, quiet
hours. Whoever is open or late by one of them is so by all.
"""
