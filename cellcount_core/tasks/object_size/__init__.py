"""How large the objects of a field are, and by which factor it is resized before it is counted.

These words are used throughout:

- *object size*: equivalent diameter of an object, in px of the image;
- *look*: an image resized by one factor, with the objects that were separated in it (`looks`);
- *estimate*: what one image says about the size of its objects, from a few looks (`estimate`);
- *plate size*: one size for the images of a plate that have one shape, found on a sample when the run is planned;
- *factor* and *scale*: what a field is resized by, and that factor with the evidence for it (`factor`);
- *second look*: the field made smaller, for objects too large for its scale (`second_look`).
"""
