"""What results look like: tables for terminals, figures and pages."""
