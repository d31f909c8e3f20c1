"""When should a prefetch not fire?"""
