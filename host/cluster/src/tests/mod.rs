mod members;
mod nodes;
mod replacing;
