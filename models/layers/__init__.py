"""Building blocks of the models: nothing here knows a whole model."""
