"""What a person sees and hears: sound files, pictures, tables, and the folder they lie in."""
