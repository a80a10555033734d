"""`signalbox demo`: a shop's day, end to end, with people who are simulated and services that are not."""
