"""What a person sees and hears: sound files, pictures, tables, pages and their folders."""
