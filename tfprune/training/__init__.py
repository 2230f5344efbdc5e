"""What works while a pruned model trains: the pruner, its callback, and what they measure."""
