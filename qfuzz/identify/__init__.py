"""Which arithmetic is it? An adaptive experiment over the catalogue: cases on which the models left must differ."""
