"""What runs in processes of its own: callers, publishers and services, ours and the peers'.

An actor is a class. It is made in a new process by `tests.benchmarks.actor`, which then calls the methods that the
benchmark asks for. Everything it is given and returns is JSON.
"""
