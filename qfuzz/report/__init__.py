"""A campaign as one self-contained HTML page; the only room that imports matplotlib and Jinja2."""
