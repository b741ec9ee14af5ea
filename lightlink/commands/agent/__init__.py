"""The agent: takes commands, runs them, stores how they ended.

`delivery` pulls; `execution` claims a command, which keeps one that is delivered again from running twice (the rule is
`lightlink.commands.model.on_delivery`); `handlers` runs it.
"""
