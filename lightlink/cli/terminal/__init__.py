"""What all subcommands share: connection options, output, exit codes."""
