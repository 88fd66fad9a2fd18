"""What several tests share: components to check, results made by hand, and ways to run the command line."""
