"""Pictures, reports and files for viewers."""
