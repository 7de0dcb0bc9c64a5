"""Using a trained model: windows, one subject, a whole cohort."""
