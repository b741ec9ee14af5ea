"""At home in other people's programs: a module for each framework, with its needs as an extra of the same name."""
