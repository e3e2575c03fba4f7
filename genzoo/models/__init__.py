"""Every family of the zoo, one folder each; presets, registry, conditions."""
