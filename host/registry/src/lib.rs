//! Content-addressed plugin artifacts and their names.
