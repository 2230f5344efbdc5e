"""What a trained net becomes: stripped, with fewer channels, on sparse layers."""
