"""What the scripts share above models and data: runs, trained models, published tables."""
