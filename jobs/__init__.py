"""Entry points for `ray job submit`: parse nothing, decide nothing, call the command line."""
