"""Does tuning find what a dense grid finds?"""
