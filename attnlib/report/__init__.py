"""papermill and nbconvert: one notebook in, one self-contained HTML file and a manifest out."""
