"""What every room uses: specs, configurations, seeds, files."""
