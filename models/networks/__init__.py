"""Encoders and decoders that the models share."""
