"""The pure rules of notices: who is told what, when not, in which words, and when to try again."""
