"""What the critic and the generator minimise: one file per objective."""
